"""People in pictures: their key points, which of them count, and the box around each of them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..pictures.references import ordinary

__all__ = ["MARGIN", "People", "boxes_around", "grown_to", "in_picture"]

# Side of the box that a network looks at in sides of the one around the key points: as pose
# networks are trained (MMPose, GetBBoxCenterScale).
MARGIN = 1.25

# A person is at least that high or wide, in heights of the picture: one key point has no size.
LEAST_SIZE = 0.05


@dataclass(frozen=True, eq=False)
class People:
    """P people in each of R pictures; constants, in float64 on the CPU.

    Args:
        points: K key points each, ``[R, P, K, 2]`` in fractions of the picture's width and height.
        counts: which of them count, ``[R, P, K]`` of 0 and 1; of a person that is not there, none.
        boxes: the box in which a network looks at each, left, top, right and bottom edge,
            ``[R, P, 4]`` in fractions; it may reach beyond the picture.
        aspect: the pictures' width divided by their height.

    Raises:
        ValueError: the shapes are others.
    """

    points: Tensor
    counts: Tensor
    boxes: Tensor
    aspect: float

    def __post_init__(self) -> None:
        shape = self.points.shape
        fits = self.points.ndim == 4 and shape[3] == 2 and shape[0] and shape[1]
        if not fits or self.counts.shape != shape[:3] or self.boxes.shape != (*shape[:2], 4):
            raise ValueError(
                "people must have points [R, P, K, 2], counts [R, P, K] and boxes [R, P, 4], got "
                f"{list(shape)}, {list(self.counts.shape)} and {list(self.boxes.shape)}"
            )
        for name in ("points", "counts", "boxes"):
            value = ordinary(getattr(self, name)).cpu().double()
            object.__setattr__(self, name, value)

    @property
    def sizes(self) -> Tensor:
        """How large each person is, in heights of the picture: ``[R, P]``."""
        sides = (self.boxes[..., 2:] - self.boxes[..., :2]) * self._units
        return (sides.amax(-1) / MARGIN).clamp_min(LEAST_SIZE)

    def only(self, chosen: list[int]) -> "People":
        """The same people, of whose points only ``chosen`` count."""
        kept = torch.zeros_like(self.counts)
        kept[..., chosen] = self.counts[..., chosen]
        return replace(self, counts=kept)

    def fitted(self, aspect: float) -> "People":
        """The people in pictures of another shape: scaled to fill it, what overhangs cut evenly.

        Points that are cut off do not count.
        """
        x, y = max(1.0, self.aspect / aspect), max(1.0, aspect / self.aspect)
        scale = self.points.new_tensor((x, y))
        points, boxes = (
            (values - 0.5) * scale.repeat(values.shape[-1] // 2) + 0.5
            for values in (self.points, self.boxes)
        )
        return People(points, self.counts * in_picture(points), boxes, aspect)

    @property
    def _units(self) -> Tensor:
        """Fractions to heights of the picture."""
        return self.points.new_tensor((self.aspect, 1.0))


def in_picture(points: Tensor) -> Tensor:
    """Whether points ``[..., 2]`` in fractions lie in the picture: ``[...]``."""
    return ((points >= 0.0) & (points <= 1.0)).all(-1)


def boxes_around(points: Tensor, counts: Tensor, aspect: float) -> Tensor:
    """Boxes ``[..., 4]`` around key points, with a margin; the whole picture where none counts.

    Args:
        points: ``[..., K, 2]`` in fractions.
        counts: ``[..., K]``: only points above 0 are enclosed.
        aspect: the pictures' width divided by their height.
    """
    inside = (counts > 0.0)[..., None]
    low = points.masked_fill(~inside, torch.inf).amin(-2)
    high = points.masked_fill(~inside, -torch.inf).amax(-2)
    nobody = ~inside.any(-2)
    low, high = low.masked_fill(nobody, 0.0), high.masked_fill(nobody, 1.0)
    units = points.new_tensor((aspect, 1.0))
    middle, half = (low + high) / 2.0, (high - low) * units / 2.0
    longest = half.amax(-1, keepdim=True).clamp_min(LEAST_SIZE / 2.0)
    # A side of almost nothing, such as that of one arm stretched out, shows no person.
    half = MARGIN * torch.maximum(half, longest / 3.0) / units
    return torch.cat((middle - half, middle + half), dim=-1)


def grown_to(boxes: Tensor, ratio: float, aspect: float) -> Tensor:
    """Boxes ``[..., 4]`` whose shorter side has grown evenly to a ratio of width to height.

    Args:
        boxes: in fractions of pictures.
        ratio: the wanted width divided by height, of the box in pixels.
        aspect: the pictures' width divided by their height.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    units = boxes.new_tensor((aspect, 1.0))
    width, height = ((high - low) * units).unbind(-1)
    grown = torch.stack(
        (torch.maximum(width, height * ratio), torch.maximum(height, width / ratio)), dim=-1
    )
    middle, half = (low + high) / 2.0, grown / units / 2.0
    return torch.cat((middle - half, middle + half), dim=-1)
