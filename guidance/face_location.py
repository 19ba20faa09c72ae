"""Where the face is: in a reference picture, and in the picture that a run is about to make.

A run's picture is blurred and changes: the face is looked for again every few steps on the
predicted clean image, and stays where it was last seen while nothing is found.
"""

import logging
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .detections import CHOICES, Detection, Detector, lies_in, preferred
from .energies.regions import region_boxes
from .faces import Faces, aligned_side

__all__ = ["FALLBACKS", "FaceLocator", "FaceTracker", "PointFinder", "is_face"]

log = logging.getLogger(__name__)

FALLBACKS = ("reference", "centre")

# A face whose aligned crop would reach further than this many longer sides of the picture is a
# mistake of the detector: points in disorder fit the template only at an absurd scale.
LARGEST_REACH = 4.0


class PointFinder(Protocol):
    """A landmark network: where in the pictures the five points of the faces are."""

    def __call__(self, image: Tensor, faces: Faces) -> Tensor:
        """``[B, 3, H, W]`` and B faces of known boxes to points ``[B, 5, 2]`` in fractions."""
        ...


@dataclass(frozen=True, eq=False)
class FaceLocator:
    """How to find the face; holds no state, so that many energies and runs may share it.

    Args:
        detect: finds faces; None: the location is fixed.
        fixed: where the face is without a detector, one for all images or one for each image of
            the batch; None: the centre square of the region, or of the picture, is taken for an
            aligned face.
        every: look again after this many steps, >= 1.
        choice: which of several faces, one of CHOICES.
        fallback: where a face is assumed before any was found, one of FALLBACKS: where it is in
            the reference, or the centre of the region (of the picture without one).
        points: refines boxes of detectors that find no points; None: the average face in the box.
        networks: what ``points`` runs on; whoever locates must have them in memory by then.

    Raises:
        ValueError: a value is outside its range, or both a detector and a location are given.
    """

    detect: Detector | None = None
    fixed: Faces | None = None
    every: int = 3
    choice: str = "largest"
    fallback: str = "reference"
    points: PointFinder | None = None
    networks: tuple = ()

    def __post_init__(self):
        if self.detect is not None and self.fixed is not None:
            raise ValueError("a face is either detected or at a fixed place, got both")
        if self.every < 1:
            raise ValueError(f"every must be >= 1, got {self.every}")
        for name, value, known in (
            ("choice", self.choice, CHOICES),
            ("fallback", self.fallback, FALLBACKS),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value}")

    def in_picture(self, pictures: Tensor, region: Tensor | None = None) -> list[Faces | None]:
        """Where the face is in each reference picture; None where none is found.

        References are photographs of their own: a fixed location, which is one of the generated
        picture, does not apply to them. Without a detector their centre square is taken for an
        aligned face.

        Args:
            pictures: ``[R, 3, h, w]`` RGB in [0, 1].
            region: ``[1 or R, 1, h, w]``: only faces whose centre lies in it count.

        Raises:
            Exception: whatever the detector raises.
        """
        if self.detect is None:
            return [Faces.whole(1, _aspect(pictures)) for _ in pictures]
        with torch.no_grad():
            return [
                self.find(picture, _mask_of(region, r))
                for r, picture in enumerate(pictures.split(1))
            ]

    def find(self, picture: Tensor, mask: Tensor | None = None) -> Faces | None:
        """The face that the detector finds in ``picture [1, 3, H, W]``, or None.

        Args:
            mask: ``[H, W]``: only faces whose centre lies where it is above 1/2 count.
        """
        picture = picture.detach().float()
        aspect = _aspect(picture)
        detections = [each for each in self.detect(picture[0].cpu()) if each.is_sound()]
        if mask is not None:
            detections = [each for each in detections if lies_in(each.box, mask)]
        if not detections:
            return None
        return self._with_points(preferred(detections, self.choice, aspect), picture, aspect)

    def begin_run(self, layout: Faces | None = None) -> "FaceTracker":
        """A tracker with fresh state for one run.

        Args:
            layout: where the face is in the reference, one for all images or one for each.
        """
        return FaceTracker(self, layout)

    def _with_points(self, detection: Detection, picture: Tensor, aspect: float) -> Faces:
        box = detection.box[None]
        points = None if detection.points is None else detection.points[None]
        if points is None and self.points is not None:
            points = self.points(picture, Faces.from_boxes(box))
        if points is None or not is_face(points, aspect):
            return Faces.from_boxes(box)
        return Faces(points, box)


class FaceTracker:
    """Where the face is during one run: one location for each image of the batch.

    It is fixed during a step, at all points at which the step evaluates energies: only the first
    call after ``begin_step`` looks for the face, and only every few steps unless an image has none
    yet.
    """

    def __init__(self, locator: FaceLocator, layout: Faces | None = None):
        self.locator = locator
        self.layout = layout
        self._seen: list[Faces | None] = []  # where each image's face was seen last
        self._current: Faces | None = None  # this step's location
        self._step: int | None = None
        self._looked_at: int | None = None  # the step of the last look at all images
        self._failed = False

    def begin_step(self, step: int | None) -> None:
        """The next call is the first one of this step; None: it is the finished image."""
        self._step = step
        self._current = None

    @torch.no_grad()
    def __call__(self, image: Tensor, region: Tensor | None = None) -> Faces:
        """Where the face is in each image; never fails for want of a face.

        The face that is detected, else where it was last, else the fallback.

        Args:
            image: ``[B, 3, H, W]`` RGB in [0, 1].
            region: ``[1 or B, 1, H, W]``: only faces whose centre lies in it count.

        Raises:
            ValueError: the locator's fixed faces, or the layouts, are neither 1 nor B.
        """
        if self._current is None or len(self._current) != len(image):
            self._current = self._located(image, region)
        return self._current

    def _located(self, image: Tensor, region: Tensor | None) -> Faces:
        if self.locator.fixed is not None:
            return _one_each(self.locator.fixed, image)
        if self.locator.detect is None:
            return _centred(image, region)
        self._look(image, region)
        if None not in self._seen:
            return Faces.stacked(self._seen)
        assumed = self._assumed(image, region)
        return Faces.stacked([seen or assumed[b] for b, seen in enumerate(self._seen)])

    def _look(self, image: Tensor, region: Tensor | None) -> None:
        """Bring what was seen up to date: of all images when it is time, else of those without."""
        if len(self._seen) != len(image):
            self._seen = [None] * len(image)
        again = self._is_due()
        if again:
            self._looked_at = self._step
        for b, picture in enumerate(image.split(1)):
            if again or self._seen[b] is None:
                self._seen[b] = self._detected(picture, _mask_of(region, b)) or self._seen[b]

    def _is_due(self) -> bool:
        if self._step is None or self._looked_at is None:
            return True
        return abs(self._step - self._looked_at) >= self.locator.every

    def _detected(self, picture: Tensor, mask: Tensor | None) -> Faces | None:
        try:
            return self.locator.find(picture, mask)
        except Exception as error:  # whatever a detector raises must not end the sampling
            if not self._failed:
                log.warning(
                    "Z-Magic: the face detector failed (%s: %s); guiding where the face was last",
                    type(error).__name__,
                    error,
                )
            self._failed = True
            return None

    def _assumed(self, image: Tensor, region: Tensor | None) -> Faces:
        """Where faces are assumed that were never found, one for each image."""
        centred = _centred(image, region)
        if self.locator.fallback == "centre" or self.layout is None:
            return centred
        layout = _one_each(self.layout, image)
        if region is None:
            return layout
        masks = [_mask_of(region, b) for b in range(len(image))]
        return Faces.stacked(
            [
                layout[b] if lies_in(layout.boxes[b], mask) else centred[b]
                for b, mask in enumerate(masks)
            ]
        )


def _one_each(faces: Faces, image: Tensor) -> Faces:
    if len(faces) not in (1, len(image)):
        raise ValueError(
            f"Locate Face: the location holds {len(faces)} faces, "
            f"expected 1 or the batch size {len(image)}"
        )
    return faces.expanded(len(image))


def _centred(image: Tensor, region: Tensor | None) -> Faces:
    """The centre square of each region, or of the picture, taken for an aligned face."""
    frame = image.new_tensor((image.shape[-1], image.shape[-2]) * 2)
    areas = region_boxes(region, image) / frame  # [1 or B, 4]
    return Faces.filling(areas, _aspect(image)).expanded(len(image))


def _aspect(image: Tensor) -> float:
    return image.shape[-1] / image.shape[-2]


def _mask_of(region: Tensor | None, sample: int) -> Tensor | None:
    """The mask ``[H, W]`` of one image from ``[1 or B, 1, H, W]``."""
    return None if region is None else region[sample if len(region) > 1 else 0, 0]


def is_face(points: Tensor, aspect: float) -> bool:
    """Whether points ``[B, 5, 2]`` can be faces: they fit the template at a sensible size."""
    if not points.isfinite().all():
        return False
    return aligned_side(points, aspect) <= LARGEST_REACH * max(aspect, 1.0)
