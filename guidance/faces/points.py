"""The five points of a face in the landmarks of networks that find more of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .crops import Faces
from .networks import LandmarkNetwork

__all__ = ["POINT_SETS", "FivePoints", "five_points"]


@dataclass(frozen=True)
class _PointSet:
    """Which landmarks make the five points; each point is the mean of those listed."""

    left_eye: tuple[int, ...]
    right_eye: tuple[int, ...]
    nose: tuple[int, ...]
    left_mouth: tuple[int, ...]
    right_mouth: tuple[int, ...]


# By the number of landmarks, which tells the usual conventions apart.
POINT_SETS = {
    5: _PointSet((0,), (1,), (2,), (3,), (4,)),
    # iBUG 68 (Sagonas et al., "300 Faces in-the-Wild Challenge", ICCVW 2013), counted from 0: the
    # eyes are the means of their lids.
    68: _PointSet((37, 38, 40, 41), (43, 44, 46, 47), (30,), (48,), (54,)),
    # insightface's 106 points (alignment/coordinate_reg): pupils, tip of the nose, mouth corners.
    106: _PointSet((38,), (88,), (86,), (52,), (61,)),
    # MediaPipe's face mesh (Kartynnik et al., "Real-time Facial Surface Geometry from Monocular
    # Video on Mobile GPUs", CVPR workshop 2019): corners of the eyes, with 478 points the centers
    # of the irises, tip of the nose, corners of the mouth.
    468: _PointSet((33, 133), (362, 263), (1,), (61,), (291,)),
    478: _PointSet((468,), (473,), (1,), (61,), (291,)),
}


def five_points(landmarks: Tensor) -> Tensor:
    """Eyes, nose and mouth corners ``[B, 5, 2]`` from the landmarks ``[B, P, 2]`` of a network.

    Raises:
        ValueError: P is no number of POINT_SETS.
    """
    chosen = POINT_SETS.get(landmarks.shape[1])
    if chosen is None:
        known = ", ".join(map(str, POINT_SETS))
        raise ValueError(
            f"expected the points of a face in a known order ({known} points), "
            f"got {landmarks.shape[1]}"
        )
    groups = (
        chosen.left_eye,
        chosen.right_eye,
        chosen.nose,
        chosen.left_mouth,
        chosen.right_mouth,
    )
    return torch.stack([landmarks[:, list(group)].mean(1) for group in groups], dim=1)


@dataclass(frozen=True, eq=False)
class FivePoints:
    """Finds the five points of faces of known boxes by a landmark network; see PointFinder.

    Args:
        network: a landmark network, whose number of points is in POINT_SETS.
    """

    network: LandmarkNetwork

    @property
    def networks(self) -> tuple:
        """The network it runs on; see the Energy protocol."""
        return self.network.networks

    def __call__(self, image: Tensor, faces: Faces) -> Tensor:
        """The points ``[B, 5, 2]`` in ``image [B, 3, H, W]``, in fractions of the picture.

        Raises:
            ValueError: it is not known which of the network's points they are.
        """
        return five_points(self.network.landmarks(image, faces))
