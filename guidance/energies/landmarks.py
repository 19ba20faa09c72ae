"""Landmarks: the points of the face should form the same shape as the target's.

The points come from a network that regresses coordinates inside the face's box, such as
insightface's 106 points or the 68 of the iBUG convention. They are compared in the crop that the
network sees: shape, expression and the turn of the head count, not where in the picture the face is
or how large.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from ..energy import networks_of
from ..faces.crops import Faces
from ..faces.face_energy import FaceEnergy
from ..faces.location import FaceLocator
from ..faces.networks import LandmarkNetwork
from ..pictures.regions import only_region_moves
from ..transfers import Constant

__all__ = ["POINT_GROUPS", "Landmarks", "chosen_points"]

# Which points belong to which part of the face, by the number of points.
_GROUPS: dict[int, dict[str, Iterable[int]]] = {
    # Sagonas et al., "300 Faces in-the-Wild Challenge", ICCV Workshops 2013 (iBUG), from 0.
    68: {
        "contour": range(17),
        "brows": range(17, 27),
        "nose": range(27, 36),
        "eyes": range(36, 48),
        "mouth": range(48, 68),
    },
    # insightface, alignment/coordinate_reg: contour; one eye and its brow; mouth; nose; the other.
    106: {
        "contour": range(33),
        "brows": (*range(43, 52), *range(97, 106)),
        "nose": range(72, 87),
        "eyes": (*range(33, 43), *range(87, 97)),
        "mouth": range(52, 72),
    },
}

POINT_GROUPS = ("all", "eyes", "brows", "nose", "mouth", "contour", "eyes and mouth")


def chosen_points(group: str, points: int) -> list[int]:
    """The numbers of the points of a group, in order.

    Args:
        group: the part of the face, one of POINT_GROUPS.
        points: how many points the network finds.

    Raises:
        ValueError: the group is unknown, or it is not known which points belong to it.
    """
    if group not in POINT_GROUPS:
        raise ValueError(f"points must be one of {', '.join(POINT_GROUPS)}, got {group}")
    if group == "all":
        return list(range(points))
    if points not in _GROUPS:
        known = " or ".join(map(str, _GROUPS))
        raise ValueError(
            f"points '{group}' needs a network of {known} points, in which the parts of the face "
            f"are known; this one finds {points}: choose 'all'"
        )
    return sorted(i for part in group.split(" and ") for i in _GROUPS[points][part])


class Landmarks(FaceEnergy):
    """``E = mean over points of |p(image) - t|^2``, ``p`` the points in the crop, ``t`` the target.

    Unit: squared sides of the crop, which is 1.5 times as long as the face's box for insightface's
    network: 1e-4 is one hundredth of a side for every point. The network sees the whole crop; the
    gradient reaches the region only.

    Args:
        landmark_network: the attribute network that finds P points.
        target: all points ``[1 or B, P, 2]`` in fractions of the crop; all NaN for an image of
            the batch of which nothing is asked, whose energy is 0.
        locator: where the face is, see FaceEnergy.
        points: which of the points count, one of POINT_GROUPS.
        layout: where the face is assumed at first, see FaceEnergy.

    Raises:
        ValueError: ``target`` has another shape, or the group is not known.
    """

    unfit_views = ("flip",)  # the left eye is wanted on the left
    goal = 0.0  # of a picture that is all that it asks for

    def __init__(
        self,
        landmark_network: LandmarkNetwork,
        target: Tensor,
        locator: FaceLocator,
        points: str = "all",
        layout: Faces | None = None,
    ):
        if target.ndim != 3 or target.shape[1:] != (landmark_network.points, 2):
            raise ValueError(
                f"target must be points [R, {landmark_network.points}, 2], got {list(target.shape)}"
            )
        super().__init__(locator, layout)
        self.landmark_network = landmark_network
        self._asked = Constant(~target.isnan().flatten(1).any(1))  # [1 or B]
        self._target = Constant(target.nan_to_num())
        self._chosen = Constant(torch.tensor(chosen_points(points, landmark_network.points)))

    @property
    def target(self) -> Tensor:
        """The wanted points in fractions of the crop, ``[1 or B, P, 2]``."""
        return self._target.tensor

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return networks_of(self.landmark_network, self.locator)

    @property
    def unseen(self) -> list[bool]:
        """See FaceEnergy; nothing is missed in a picture of which nothing is asked."""
        asked = self._asked.tensor.tolist()
        return [hidden and asked[b % len(asked)] for b, hidden in enumerate(super().unseen)]

    def of_faces(self, image: Tensor, region: Tensor | None, faces: Faces, cut: Faces) -> Tensor:
        """The energy ``[B]`` of faces that are known; see FaceEnergy.

        Raises:
            ValueError: the number of targets is neither 1 nor the batch size.
        """
        if len(self.target) not in (1, len(image)):
            raise ValueError(
                f"the target holds {len(self.target)} faces, "
                f"expected 1 or the batch size {len(image)}"
            )
        moving = only_region_moves(image, region)
        found = self.landmark_network.in_crop(moving, faces, cut)  # [B, P, 2]
        residual = (found - self._target.like(found)).index_select(1, self._chosen.on(found.device))
        return residual.square().sum(-1).mean(-1) * self._asked.like(residual)
