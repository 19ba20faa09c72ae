"""Pose: the key points of people should be where they are in a photograph, or in pose data.

Each person is looked at in a box around where it is wanted, as pose networks see one person at a
time: so it is known who is meant.
"""

import copy
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..energy import networks_of
from ..pictures.regions import only_region_moves
from ..poses.looking import PointFinder, found_in
from ..poses.people import People
from ..transfers import Constant, numbers

__all__ = ["Pose"]

# Shapes of pictures for which the people are kept; a run has one or two.
FITTED_KEPT = 2


class Pose:
    """``E = mean over points of |p(image) - t|^2 / s^2``, ``s`` the size of the person.

    Unit: squared sizes of the person, the longer side of the box around it: 1e-4 is one hundredth
    of it for every point. Points that do not count, or are wanted outside the picture, are left
    out. With a region, points count as much as the region does where they are wanted; the network
    sees the whole box, and the gradient reaches the region only.

    Args:
        finder: the network that finds the points of one person.
        people: where the points should be, in one picture for all images, or one for each.

    Raises:
        ValueError: the network finds another number of points.
    """

    describes_places = True  # what it asks for lies at places of the whole picture
    goal = 0.0  # of a picture that is all that it asks for

    def __init__(self, finder: PointFinder, people: People):
        wanted = people.points.shape[2]
        if wanted != finder.points:
            raise ValueError(f"expected {finder.points} key points of each person, got {wanted}")
        self.finder = finder
        self.people = people
        self._fitted = lru_cache(FITTED_KEPT)(lambda aspect: _Wanted(people.fitted(aspect)))
        # Whether any point counts in this run; None: not known yet.
        self._asks: bool | None = True

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return networks_of(self.finder)

    def begin_run(self) -> "Pose":
        """The same energy, which tells whether it asked for anything; see RunEnergy."""
        energy = copy.copy(self)
        energy._asks = None
        return energy

    def begin_step(self, step: int | None) -> None:
        """Nothing of it follows the steps; see RunEnergy."""

    def warnings(self) -> list[str]:
        """A sentence about a run in which no key point counted; see RunEnergy."""
        if self._asks is not False:
            return []
        return [
            "no key point of the pose lies in the picture, or in the region, so that nothing "
            "was asked for"
        ]

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol.

        Raises:
            ValueError: the number of pose pictures is neither 1 nor the batch size.
        """
        wanted = self._fitted(image.shape[-1] / image.shape[-2])
        pictures, persons = wanted.people.points.shape[:2]
        if pictures not in (1, len(image)):
            raise ValueError(
                f"the pose holds {pictures} pictures, expected 1 or the batch size {len(image)}"
            )
        weights = wanted.counts.like(image)  # [1 or B, P, K]
        if region is not None:
            weights = weights * _inside(region, wanted.points.like(image))
        if not self._asks:  # a region may be empty at first
            self._asks = bool((weights > 0.0).any())
        moving = only_region_moves(image, region)
        errors = torch.stack([self._errors(moving, wanted, p) for p in range(persons)], dim=1)
        total = weights.sum((1, 2)).clamp_min(torch.finfo(weights.dtype).eps)
        return (errors * weights).sum((1, 2)) / total

    def _errors(self, image: Tensor, wanted: "_Wanted", person: int) -> Tensor:
        """Squared distances of one person's points ``[B, K]``, in squares of its size."""
        found, _ = found_in(self.finder, image, wanted.people.boxes[:, person])
        residual = found - wanted.points.like(found)[:, person]
        units = numbers((wanted.people.aspect, 1.0), found)
        sizes = wanted.sizes.like(found)[:, person, None]
        return (residual * units).square().sum(-1) / sizes.square()


class _Wanted:
    """The people in pictures of one shape; what is many numbers is copied to a device once."""

    def __init__(self, people: People):
        self.people = people
        self.points = Constant(people.points)
        self.counts = Constant(people.counts)
        self.sizes = Constant(people.sizes)


def _inside(region: Tensor, points: Tensor) -> Tensor:
    """How much the region counts at points ``[R, P, K, 2]``: ``[R or B, P, K]``."""
    count = max(len(region), len(points))
    masks, places = region.to(points).expand(count, -1, -1, -1), points.expand(count, -1, -1, -1)
    sampled = F.grid_sample(
        masks, 2.0 * places - 1.0, mode="nearest", padding_mode="border", align_corners=False
    )
    return sampled[:, 0]
