"""Robust views: an energy averaged over views of the picture, so that only the picture counts.

A network can be pleased by a pattern of pixels that nobody sees. Seen through noise, a blur, or
from a slightly other place the pattern is gone, and what is left is in the picture.
"""

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from .conditions import Condition
from .energy import Energy, RandomEnergy, RunEnergy, networks_of
from .faces.crops import Faces
from .faces.face_energy import FaceEnergy
from .pictures.views import NoisePattern, View, ViewOptions, drawn_views
from .random_streams import seed_of

__all__ = ["RobustViews", "robust", "robust_conditions"]


class RobustViews:
    """``E = mean over views of E_inner(view(image))``.

    The views are drawn anew in each step and fixed within it; see RunEnergy. Those of a seed are
    the same for all pictures of a batch and for all conditions. The finished picture is measured
    as it is.

    A face is located in the picture as it is. Its network sees the crop shifted, as a detector
    would err, by a share of the face's box; where landmarks are in the picture stays the same.

    Args:
        energy: the energy that sees the views.
        options: how they differ, of what the energy allows: see ``robust``.
    """

    def __init__(self, energy: Energy, options: ViewOptions):
        self.energy = energy
        self.options = options
        self._pattern = NoisePattern()
        self._views: list[View] = []
        self._seed: int | None = None

    def begin_run(self) -> "RobustViews":
        """Return this energy with fresh state; see RunEnergy."""
        energy = copy.copy(self)
        if isinstance(self.energy, RunEnergy):
            energy.energy = self.energy.begin_run()
        energy._pattern = NoisePattern()
        return energy

    def draw_from(self, seed: int) -> None:
        """Take the seed of the coming step's views; see RandomEnergy."""
        self._seed = seed
        if isinstance(self.energy, RandomEnergy):
            self.energy.draw_from(seed)

    def begin_step(self, step: int | None) -> None:
        """Draw the views of this step; None: the finished picture, as it is."""
        if isinstance(self.energy, RunEnergy):
            self.energy.begin_step(step)
        self._views = []
        if step is not None:
            seed = step if self._seed is None else self._seed
            # A seed of its own: views do not draw the numbers of other choices of the step.
            self._views = drawn_views(self.options, seed_of(f"views {seed}"))

    @property
    def calls(self) -> int:
        """How often one call evaluates the energy that sees the views."""
        return max(1, len(self._views))

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return networks_of(self.energy)

    @property
    def goal(self) -> float | None:
        """The goal of the energy that sees the views; see the Energy protocol."""
        return getattr(self.energy, "goal", None)

    @property
    def describes_places(self) -> bool:
        """As the energy that sees the views; see the Energy protocol."""
        return getattr(self.energy, "describes_places", False)

    @property
    def face_looks(self) -> tuple[int, int] | None:
        """As of the energy that sees the views; see RunEnergy."""
        return getattr(self.energy, "face_looks", None)

    @property
    def unseen(self) -> list[bool]:
        """As of the energy that sees the views; see RunEnergy."""
        return getattr(self.energy, "unseen", [])

    def due(self, pictures: int) -> int:
        """As of the energy that sees the views; see RunEnergy."""
        return self.energy.due(pictures) if hasattr(self.energy, "due") else 0

    def notes(self) -> list[str]:
        """Sentences of the energy that sees the views; see RunEnergy."""
        return getattr(self.energy, "notes", list)()

    def warnings(self) -> list[str]:
        """Sentences of the energy that sees the views; see RunEnergy."""
        return getattr(self.energy, "warnings", list)()

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        if not self._views:
            return self.energy(image, region)
        faces = None
        if isinstance(self.energy, FaceEnergy):
            faces = self.energy.located(image, region)
        moving = image if region is None else _only_inside_moves(image, region)
        return torch.stack([self._of(view, moving, region, faces) for view in self._views]).mean(0)

    def _of(self, view: View, image: Tensor, region: Tensor | None, faces: Faces | None) -> Tensor:
        """The energy of one view."""
        shifted = faces is None
        seen = view.degraded(view.moved(image, shifted=shifted), self._pattern)
        if region is not None:
            region = view.moved(region, shifted=shifted, beyond="constant")
        if not isinstance(self.energy, FaceEnergy) or faces is None:
            return self.energy(seen, region)
        faces = faces.mirrored() if view.mirrored else faces
        return self.energy.of_faces(seen, region, faces, faces.nudged(*view.shift))


def robust(condition: Condition, options: ViewOptions) -> tuple[Condition, list[str]]:
    """The condition seen through views, and sentences on what it cannot be shown.

    An energy that asks for something at places is neither shifted nor mirrored, or not mirrored if
    it follows the face (see the Energy protocol). One that has views keeps them.
    """
    energy, name = condition.energy, condition.name
    if isinstance(energy, RobustViews):
        return condition, [f"{name} has views already, and keeps them"]
    places = getattr(energy, "describes_places", False)
    unfit = ("shift", "flip") if places else getattr(energy, "unfit_views", ())
    left_out = [view for view in unfit if getattr(options, view)]
    options = replace(options, **{view: type(getattr(options, view))() for view in left_out})
    said = []
    if left_out:
        said = [f"{name} is seen without {' and '.join(left_out)}: it asks for something at places"]
    if not options.changes:
        return condition, said
    options = options if options.differ else replace(options, count=1)
    return replace(condition, energy=RobustViews(energy, options)), said


def robust_conditions(
    conditions: Iterable[Condition], options: ViewOptions
) -> tuple[tuple[Condition, ...], list[str]]:
    """All of the conditions seen through views; see ``robust``."""
    made = [robust(condition, options) for condition in conditions]
    return tuple(condition for condition, _ in made), [line for _, lines in made for line in lines]


def _only_inside_moves(image: Tensor, region: Tensor) -> Tensor:
    """The image itself, with no gradient where the region is 0: a blur must not bring it there."""
    return torch.where(region.to(image) > 0.0, image, image.detach())
