"""Where the face is during a run: followed from step to step, and told at its end.

A run's picture is blurred and changes: the face is looked for again every few steps on the
predicted clean image, and stays where it was last seen while nothing is found.
"""

import logging

import torch
from torch import Tensor

from ..pictures.regions import region_boxes
from ..wording import numbered, printable
from .crops import Faces
from .crowds import Crowd
from .detections import lies_in
from .location import FaceLocator, aspect_of, mask_of, one_each

__all__ = ["FaceTracker"]

log = logging.getLogger(__name__)


class FaceTracker:
    """Where the face is during one run: one location for each image of the batch.

    It is fixed during a step, at all points at which the step evaluates energies: only the first
    call after ``begin_step`` looks for the face, and only every few steps unless an image had none
    at its last look.

    Args:
        locator: how to find the face.
        layout: where the face is in the reference, one for all images or one for each; None: not
            known.
    """

    def __init__(self, locator: FaceLocator, layout: Faces | None = None):
        self.locator = locator
        self.layout = layout
        self._seen: list[Faces | None] = []  # where each image's face was seen last
        self._current: Faces | None = None  # this step's location
        self._step: int | None = None
        self._guided = False  # whether there was another step than that of the finished image
        self._looked_at: int | None = None  # the step of the last look at all images
        self._failure: str | None = None
        self._looks: list[int] = []  # at each image of the batch
        self._found: list[int] = []  # in how many of them there was a face
        self._there: list[bool] = []  # whether there was one in the last of each
        self._outside: list[bool] = []  # whether none of several given faces is in the region
        self._chosen: set[int] = set()  # the images in which one ever was

    def begin_step(self, step: int | None) -> None:
        """Begin a step: the next call is its first one; None: of the finished image."""
        self._step = step
        self._current = None
        self._guided |= step is not None

    @torch.no_grad()
    def __call__(self, image: Tensor, region: Tensor | None = None) -> Faces:
        """Where the face is in each image; also where none is found.

        It is the face that is detected, else where it was last, else the fallback.

        Args:
            image: ``[B, 3, H, W]`` RGB in [0, 1].
            region: ``[1 or B, 1, H, W]``: only faces whose center lies in it count.

        Raises:
            ValueError: the locator's fixed faces, or the layouts, are neither 1 nor B.
        """
        if self._current is None or len(self._current) != len(image):
            self._current = self._located(image, region)
        return self._current

    @property
    def face_looks(self) -> tuple[int, int] | None:
        """The looks of this run that found a face, and all of them; None if there was none."""
        return (sum(self._found), sum(self._looks)) if self._looks else None

    @property
    def unseen(self) -> list[bool]:
        """In which images of the batch the detector found no face, or the region holds none.

        Empty if nothing was looked for, and no region chooses among faces. A landmark network looks
        for points in a place that is given: the face is there, whether they are found or not.
        """
        if self.locator.detect is None:
            return list(self._outside)
        return [not there for there in self._there]

    def due(self, pictures: int) -> int:
        """At how many of so many images the next call looks."""
        if not self._looks_for_it or (self._current is not None and len(self._current) == pictures):
            return 0
        if len(self._seen) != pictures or self._is_due():
            return pictures
        return sum(not there for there in self._there)

    def notes(self) -> list[str]:
        """Sentences for a report: in how many looks of this run a face was found."""
        if not self._looks:
            return []
        found = f"a face was found in {sum(self._found)} of {sum(self._looks)} looks"
        if len(self._looks) == 1:
            return [found]
        each = ", ".join(
            f"{found} of {looks}" for found, looks in zip(self._found, self._looks, strict=True)
        )
        return [f"{found} (picture by picture: {each})"]

    def warnings(self) -> list[str]:
        """Sentences about this run that deserve a warning: pictures in which no face was found."""
        failed = [] if self._failure is None else [self._failure]
        failed += self._said_of_others()
        without = [b for b, found in enumerate(self._found) if not found]
        if not without:
            return failed
        where = f"any of {sum(self._looks[b] for b in without)} looks"
        if len(without) < len(self._looks):
            where += f" at picture {numbered(without)} of {len(self._looks)}"
        said = "no face was found"
        if self._guided:
            said = f"{said} in {where}: guided all the time {self._place}"
        advice = self.locator.advice
        return [*failed, f"{said}.\n{advice}" if advice else said]

    def _said_of_others(self) -> list[str]:
        """A sentence on pictures in whose region none of the given faces was at any time."""
        without = [b for b in range(len(self._outside)) if b not in self._chosen]
        if not without:
            return []
        said = "none of the given faces lies in the region"
        if len(without) < len(self._outside):
            said += f" at picture {numbered(without)} of {len(self._outside)}"
        return [
            f"{said}: guided all the time in the center of the region" if self._guided else said
        ]

    @property
    def _place(self) -> str:
        if self.locator.detect is None:
            return "at the place that is given"
        if self.layout is None or self.locator.fallback == "center":
            return "in the center"
        return "where the face is in the reference"

    def _located(self, image: Tensor, region: Tensor | None) -> Faces:
        assumed = self._assumed(image, region)
        if not self._looks_for_it:
            return assumed
        self._look(image, region, assumed)
        return Faces.stacked([seen or assumed[b] for b, seen in enumerate(self._seen)])

    def _look(self, image: Tensor, region: Tensor | None, assumed: Faces) -> None:
        """Bring what was seen up to date: of all images when it is time, else of those without."""
        if len(self._seen) != len(image):
            self._seen = [None] * len(image)
            self._there = [False] * len(image)
        self._count_up_to(len(image))
        again = self._is_due()
        if again:
            self._looked_at = self._step
        for b, picture in enumerate(image.split(1)):
            if again or not self._there[b]:
                found = self._look_at(picture, mask_of(region, b), assumed[b])
                self._seen[b] = found or self._seen[b]
                self._looks[b] += 1
                self._found[b] += found is not None
                self._there[b] = found is not None

    def _is_due(self) -> bool:
        if self._step is None or self._looked_at is None:
            return True
        return abs(self._step - self._looked_at) >= self.locator.every

    def _look_at(self, picture: Tensor, mask: Tensor | None, place: Faces) -> Faces | None:
        try:
            return self.locator.find(picture, mask, place)
        except Exception as error:  # whatever a detector raises must not end the sampling
            if self._failure is None:
                self._failure = (
                    f"the {self._what} failed ({type(error).__name__}: {printable(str(error))}); "
                    "guiding where the face was last"
                )
                log.warning("Z-Magic: %s", self._failure)
            return None

    def _count_up_to(self, count: int) -> None:
        missing = [0] * (count - len(self._looks))
        self._looks += missing
        self._found += missing

    @property
    def _looks_for_it(self) -> bool:
        return self.locator.detect is not None or self.locator.points is not None

    @property
    def _what(self) -> str:
        return "landmark network" if self.locator.detect is None else "face detector"

    def _assumed(self, image: Tensor, region: Tensor | None) -> Faces:
        """Where faces are assumed that were never found, one for each image."""
        if self.locator.fixed is not None:
            return self._placed(image, region)
        centered = _centered(image, region)
        if self.locator.detect is None or self.layout is None:
            return centered
        if self.locator.fallback == "center":
            return centered
        layout = one_each(self.layout, image)
        if region is None:
            return layout
        masks = [mask_of(region, b) for b in range(len(image))]
        return Faces.stacked(
            [
                layout[b] if mask is None or lies_in(layout.boxes[b], mask) else centered[b]
                for b, mask in enumerate(masks)
            ]
        )

    def _placed(self, image: Tensor, region: Tensor | None) -> Faces:
        """The given face of each image, the center of the region where it has none of them."""
        placed = self.locator.placed(image, region)
        if isinstance(self.locator.fixed, Crowd):
            self._outside = [face is None for face in placed]
            self._chosen.update(b for b, face in enumerate(placed) if face)
        found = [face for face in placed if face]
        if len(found) == len(placed):
            return Faces.stacked(found)
        centered = _centered(image, region)
        return Faces.stacked([face or centered[b] for b, face in enumerate(placed)])


def _centered(image: Tensor, region: Tensor | None) -> Faces:
    """The center square of each region, or of the picture, taken for an aligned face."""
    if region is None:
        return Faces.whole(len(image), aspect_of(image))
    frame = image.new_tensor((image.shape[-1], image.shape[-2]) * 2)
    areas = region_boxes(region, image) / frame  # [1 or B, 4]
    return Faces.filling(areas, aspect_of(image)).expanded(len(image))
