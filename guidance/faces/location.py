"""How to find the face: by a detector, by the points of a landmark network, or at a fixed place."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..energy import networks_of
from .crops import Faces, aligned_side
from .crowds import Crowd
from .detections import (
    CHOICES,
    Detection,
    Detector,
    is_in,
    preferred,
)

__all__ = [
    "FALLBACKS",
    "FaceLocator",
    "PointFinder",
    "aspect_of",
    "is_face",
    "is_near",
    "mask_of",
    "one_each",
]

FALLBACKS = ("reference", "center")

# A landmark network is the more exact the better the box fits: it looks again at the box around
# what it found, until no edge moves by more than this share of the box's sides. If that does not
# come about there is no face, or the network is lost. On 200 synthetic portraits, from the average
# place, a network trained on such portraits came to rest in 196, 95 of 100 within 0.11 distances of
# the eyes, and one trained on photographs in 186, within 0.29; both in none of 50 noise images.
MOST_LOOKS, STILL = 6, 0.05

# Such a face has to have its center in the given box, and to be this many times as wide and high at
# most, or as narrow and low.
LARGEST_CHANGE = 2.0

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
        detect: the detector; None: the location is fixed.
        fixed: where the face is without a detector, one for all images or one for each image of
            the batch, or several of which the region chooses; None: the center square of the
            region, or of the picture, is taken for an aligned face.
        fixed_in_reference: the references are framed like the picture: ``fixed`` is where the
            face is in them, too.
        every: the number of steps after which the face is looked for again, >= 1.
        choice: which of several faces, one of CHOICES.
        fallback: where a face is assumed before any was found, one of FALLBACKS: where it is in
            the reference, or the center of the region (of the picture without one).
        points: finds the five points in the box of a detector that finds none, or near the place
            that is given instead of a detector; None: the average face in the box.
        advice: what to do about a run in which no face is found, for its warning.

    Raises:
        ValueError: a value is outside its range, or both a detector and a location are given.
    """

    detect: Detector | None = None
    fixed: Faces | Crowd | None = None
    fixed_in_reference: bool = False
    every: int = 3
    choice: str = "largest"
    fallback: str = "reference"
    points: PointFinder | None = None
    advice: str = ""

    def __post_init__(self) -> None:
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

    @property
    def networks(self) -> tuple:
        """The networks of the detector and the points; see the Energy protocol."""
        return networks_of(self.detect, self.points)

    def in_picture(self, pictures: Tensor, region: Tensor | None = None) -> list[Faces | None]:
        """Find the face in each reference picture; None where there is none.

        References are photographs of their own: a fixed location is one of the generated picture
        and applies to them only if the locator says so. Otherwise, without a detector, their
        center square is taken for an aligned face.

        Args:
            pictures: ``[R, 3, h, w]`` RGB in [0, 1].
            region: ``[1 or R, 1, h, w]``: only faces whose center lies in it count.

        Raises:
            ValueError: there are several fixed faces, but not one for each reference.
            Exception: whatever the detector raises.
        """
        found = self.seen_in_picture(pictures, region)
        if self.detect is not None:
            return found
        places = self._places(pictures)
        return [face or places[r] for r, face in enumerate(found)]

    def seen_in_picture(self, pictures: Tensor, region: Tensor | None = None) -> list[Faces | None]:
        """The faces that the detector or the points find in references; see ``in_picture``."""
        places = self._places(pictures)
        with torch.no_grad():
            return [
                self.find(picture, mask_of(region, r), places[r])
                for r, picture in enumerate(pictures.split(1))
            ]

    def find(
        self, picture: Tensor, mask: Tensor | None = None, place: Faces | None = None
    ) -> Faces | None:
        """Find the face in ``picture [1, 3, H, W]`` by the detector or the points; else None.

        Args:
            mask: ``[H, W]``: only faces in it count, see ``is_in``.
            place: where the face is without a detector, roughly.
        """
        picture = picture.detach().float()
        aspect = aspect_of(picture)
        if self.detect is None:
            if self.points is None or place is None:
                return None
            return self._near(self.points, place, picture, aspect)
        detections = [each for each in self.detect(picture[0].cpu()) if each.is_sound()]
        if mask is not None:
            detections = [each for each in detections if is_in(each.box, mask, self.choice)]
        if not detections:
            return None
        chosen = preferred(detections, self.choice, aspect, mask)
        return self._with_points(chosen, picture, aspect)

    def placed(self, image: Tensor, region: Tensor | None = None) -> list[Faces | None]:
        """The faces at fixed places, one for each of ``image [B, 3, H, W]``.

        Args:
            region: ``[1 or B, 1, H, W]``: chooses among several; None where none of them is in it.

        Raises:
            ValueError: there are neither one nor B places, or no fixed place.
        """
        if isinstance(self.fixed, Faces):
            each = one_each(self.fixed, image)
            return [each[b] for b in range(len(image))]
        if self.fixed is None or len(self.fixed) not in (1, len(image)):
            held = 0 if self.fixed is None else len(self.fixed)
            raise ValueError(
                f"the location holds faces of {held} pictures, expected 1 or the batch size "
                f"{len(image)}"
            )
        crowd = self.fixed
        return [crowd.chosen(b % len(crowd), mask_of(region, b)) for b in range(len(image))]

    def _with_points(self, detection: Detection, picture: Tensor, aspect: float) -> Faces:
        box = detection.box[None]
        points = None if detection.points is None else detection.points[None]
        if points is None and self.points is not None:
            points = self.points(picture, Faces.from_boxes(box))
        if points is None or not is_face(points, aspect):
            return Faces.from_boxes(box)
        return Faces(points, box)

    def _near(
        self, finder: PointFinder, place: Faces, picture: Tensor, aspect: float
    ) -> Faces | None:
        """The face that the points come to rest at near a place, None if they do not."""
        found = place
        for _ in range(MOST_LOOKS):
            points = finder(picture, found)
            if not is_face(points, aspect):
                return None
            before, found = found, Faces.from_points(points, aspect)
            if _is_still(before.boxes[0], found.boxes[0]):
                return found if is_near(found.boxes[0], place.boxes[0]) else None
        return None

    def _places(self, pictures: Tensor) -> Faces:
        """Where the faces of references are taken to be without a detector."""
        if self.fixed is not None and self.fixed_in_reference:
            return Faces.stacked([face for face in self.placed(pictures) if face])
        return Faces.whole(len(pictures), aspect_of(pictures))


def _is_still(before: Tensor, after: Tensor) -> bool:
    """Whether the edges of a box ``[4]`` are where they were."""
    sides = (after[2:] - after[:2]).repeat(2)
    return bool(((after - before).abs() <= STILL * sides).all())


def is_near(box: Tensor, place: Tensor) -> bool:
    """Whether the face in ``box [4]`` can be the one that is roughly at ``place [4]``."""
    middle = (box[:2] + box[2:]) / 2.0
    change = (box[2:] - box[:2]) / (place[2:] - place[:2])
    inside = (place[:2] < middle) & (middle < place[2:])
    alike = (change < LARGEST_CHANGE) & (change > 1.0 / LARGEST_CHANGE)
    return bool((inside & alike).all())


def is_face(points: Tensor, aspect: float) -> bool:
    """Whether points ``[B, 5, 2]`` can be faces: they fit the template at a sensible size."""
    if not points.isfinite().all():
        return False
    return aligned_side(points, aspect) <= LARGEST_REACH * max(aspect, 1.0)


def one_each(faces: Faces, image: Tensor) -> Faces:
    """``faces``, one for each of ``image [B, 3, H, W]``.

    Raises:
        ValueError: there are neither one nor B.
    """
    if len(faces) not in (1, len(image)):
        raise ValueError(
            f"the location holds {len(faces)} faces, expected 1 or the batch size {len(image)}"
        )
    return faces.expanded(len(image))


def aspect_of(image: Tensor) -> float:
    """The width of ``image [..., H, W]`` divided by its height."""
    return image.shape[-1] / image.shape[-2]


def mask_of(region: Tensor | None, sample: int) -> Tensor | None:
    """The mask ``[H, W]`` of one image from ``[1 or B, 1, H, W]``."""
    return None if region is None else region[sample if len(region) > 1 else 0, 0]
