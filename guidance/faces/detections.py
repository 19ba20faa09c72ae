"""Faces that a detector reports, and which of several is meant."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

__all__ = ["CHOICES", "IN_THE_REGION", "Detection", "Detector", "is_in", "lies_in", "preferred"]

IN_THE_REGION = "most in the region"

# A face of which less than this share of the box lies in the region is somebody else's, where the
# region chooses among faces.
LEAST_SHARE = 0.3

CHOICES = ("largest", "most central", "leftmost", "rightmost", "most certain", IN_THE_REGION)


@dataclass(frozen=True, eq=False)
class Detection:
    """A face that a detector reports, in fractions of the picture's width and height.

    Args:
        box: its left, top, right and bottom edge, ``[4]``.
        score: how certain the detector is, in [0, 1].
        points: its five points ``[5, 2]`` as in Faces, or None if the detector knows boxes only.
    """

    box: Tensor
    score: float = 1.0
    points: Tensor | None = None

    def is_sound(self) -> bool:
        """Whether the box has an area."""
        return bool(self.box.isfinite().all()) and bool((self.box[2:] > self.box[:2]).all())


# A picture [3, H, W] RGB in [0, 1] on the CPU to the faces in it.
Detector = Callable[[Tensor], list[Detection]]


def preferred(
    detections: Sequence[Detection], choice: str, aspect: float, mask: Tensor | None = None
) -> Detection:
    """Choose the face that is meant; there is at least one. Of equal ones it is the largest.

    Args:
        choice: which face is meant, one of CHOICES.
        aspect: the width of the picture divided by its height.
        mask: the region ``[H, W]`` that a face should be in; None: all are alike in it.
    """

    def value(detection: Detection) -> tuple[float, float]:
        x0, y0, x1, y1 = detection.box.tolist()
        x, y = (x0 + x1) / 2.0, (y0 + y1) / 2.0
        size = (x1 - x0) * (y1 - y0)
        if choice == IN_THE_REGION:
            return (0.0 if mask is None else _share_in(detection.box, mask), size)
        values = {
            "largest": size,
            "most central": -(((x - 0.5) * aspect) ** 2) - (y - 0.5) ** 2,
            "leftmost": -x,
            "rightmost": x,
            "most certain": detection.score,
        }
        return (values[choice], size)

    return max(detections, key=value)


def lies_in(box: Tensor, mask: Tensor) -> bool:
    """Whether the center of a box ``[4]`` lies where ``mask [H, W]`` is above 1/2."""
    x, y = ((box[:2] + box[2:]) / 2.0).clamp(0.0, 1.0).tolist()
    row, column = (
        min(int(place * side), side - 1) for place, side in zip((y, x), mask.shape, strict=True)
    )
    return bool(mask[row, column] > 0.5)


def is_in(box: Tensor, mask: Tensor, choice: str) -> bool:
    """Whether the face in a box ``[4]`` is one of those in ``mask [H, W]``.

    Its center is where the mask is above 1/2; or, where the region chooses, LEAST_SHARE is inside.
    """
    if choice == IN_THE_REGION:
        return _share_in(box, mask) >= LEAST_SHARE
    return lies_in(box, mask)


def _share_in(box: Tensor, mask: Tensor) -> float:
    """How much of a box ``[4]`` in fractions lies in ``mask [H, W]``, in [0, 1]."""
    edges = box.clamp(0.0, 1.0) * box.new_tensor((mask.shape[1], mask.shape[0]) * 2)
    left, top, right, bottom = (int(edge) for edge in edges.round())
    inside = mask[top : max(bottom, top + 1), left : max(right, left + 1)]
    return float(inside.float().mean()) if inside.numel() else 0.0
