"""The base of energies of a face, which is located once in a step."""

import copy
from typing import Self

from torch import Tensor

from ..energy import networks_of
from .crops import Faces
from .location import FaceLocator
from .tracker import FaceTracker

__all__ = ["FaceEnergy"]


class FaceEnergy:
    """An energy that follows the face during a run; see RunEnergy.

    The face is located once for all points of a step. An energy that was not begun by a run looks
    for it at every call.

    Args:
        locator: how the face is found, in the picture or, with a region, in the region.
        layout: where the face is assumed until the first one is found, if the locator asks for
            that: its place in the reference.
    """

    def __init__(self, locator: FaceLocator, layout: Faces | None):
        self.locator = locator
        self.layout = layout
        self._tracker: FaceTracker | None = None

    @property
    def networks(self) -> tuple:
        """The networks that locating the face runs on; see the Energy protocol."""
        return networks_of(self.locator)

    def begin_run(self) -> Self:
        """The same energy with a location of its own; see RunEnergy."""
        energy = copy.copy(self)  # everything else is constant and may be shared
        energy._tracker = FaceTracker(self.locator, self.layout)
        return energy

    def begin_step(self, step: int | None) -> None:
        """Allow the face to be looked for again; see RunEnergy."""
        if self._tracker is not None:
            self._tracker.begin_step(step)

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        faces = self.located(image, region)
        return self.of_faces(image, region, faces, faces)

    def of_faces(self, image: Tensor, region: Tensor | None, faces: Faces, cut: Faces) -> Tensor:
        """The energy ``[B]`` of faces that are known.

        Args:
            image, region: see the Energy protocol.
            faces: where the face is in each picture.
            cut: the faces around which the network's crops are cut: the same, or some beside
                them, as a detector errs.
        """
        raise NotImplementedError

    def located(self, image: Tensor, region: Tensor | None) -> Faces:
        """Locate the face in each of ``image [B, 3, H, W]``; the result is a constant."""
        locate = self._tracker or FaceTracker(self.locator, self.layout)
        return locate(image.detach(), region)

    @property
    def face_looks(self) -> tuple[int, int] | None:
        """The looks of this run that found a face, and all of them; None if there was none."""
        return None if self._tracker is None else self._tracker.face_looks

    @property
    def unseen(self) -> list[bool]:
        """In which pictures the last look found no face; empty if there was none."""
        return [] if self._tracker is None else self._tracker.unseen

    def due(self, pictures: int) -> int:
        """At how many of so many pictures the next call looks; see RunEnergy."""
        return (self._tracker or FaceTracker(self.locator, self.layout)).due(pictures)

    def notes(self) -> list[str]:
        """Sentences on how often a face was found in this run; see RunEnergy."""
        return [] if self._tracker is None else self._tracker.notes()

    def warnings(self) -> list[str]:
        """Sentences about pictures in which no face was found; see RunEnergy."""
        return [] if self._tracker is None else self._tracker.warnings()
