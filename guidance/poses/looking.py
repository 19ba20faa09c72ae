"""How a pose network looks at people: one at a time, in a box around each."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..pictures.regions import cropped
from ..transfers import made_at
from .people import People, boxes_around, grown_to, in_picture

__all__ = ["PointFinder", "found_in", "people_in", "seen_in_boxes"]


class PointFinder(Protocol):
    """A pose network for one person, whose gradient is the slope of the points.

    It may have ``networks``, as an energy has.

    Attributes:
        size: height and width of the pictures that it takes.
        points: how many key points it finds.
    """

    size: tuple[int, int]
    points: int

    def __call__(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """``[N, 3, *size]`` in [0, 1] to points ``[N, K, 2]``, in fractions, and scores ``[N, K]``.

        A score is how certain a point is.
        """
        ...


def seen_in_boxes(image: Tensor, boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What a network sees of people: the boxes, grown to the shape that it takes.

    Args:
        image: ``[B, 3, H, W]``.
        boxes: ``[1 or B, 4]`` in fractions, on the CPU.
        size: height and width of the network's pictures.

    Returns:
        ``[B, 3, *size]``, black beyond the picture, and the grown boxes.
    """
    height, width = image.shape[-2:]
    boxes = grown_to(boxes, size[1] / size[0], width / height)
    pixels = boxes * boxes.new_tensor((width, height) * 2)
    beyond = torch.cat((-pixels[:, :2], pixels[:, 2:] - pixels.new_tensor((width, height))))
    border = int(beyond.amax().clamp_min(0.0).ceil())
    padded = F.pad(image, (border,) * 4) if border else image
    return cropped(padded, made_at(pixels + border, image), size), boxes


def found_in(finder: PointFinder, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The key points of the person in each box: ``[B, K, 2]`` in fractions, and scores ``[B, K]``.

    Args:
        finder: the network.
        image: ``[B, 3, H, W]``.
        boxes: ``[1 or B, 4]`` in fractions, on the CPU.
    """
    crops, boxes = seen_in_boxes(image, boxes, finder.size)
    points, scores = finder(crops)
    edges = made_at(boxes, image)[:, None]  # [1 or B, 1, 4]
    low, high = edges[..., :2], edges[..., 2:]
    return low + points * (high - low), scores


def people_in(
    finder: PointFinder, pictures: Tensor, boxes: Tensor | None, least: float
) -> tuple[People, Tensor]:
    """The people in photographs, each found twice: in its box, then in the one around its points.

    Args:
        finder: the network.
        pictures: ``[R, 3, h, w]``.
        boxes: ``[1 or R, P, 4]`` in fractions, a box around each person; None: the whole picture
            is one person.
        least: points of a lower score do not count.

    Returns:
        the people, and the scores ``[R, P, K]``.
    """
    aspect = pictures.shape[-1] / pictures.shape[-2]
    if boxes is None:
        boxes = torch.tensor((((0.0, 0.0, 1.0, 1.0),),))
    boxes = boxes.double().expand(len(pictures), -1, -1)
    points, counts, _ = _found(finder, pictures, boxes, least)
    boxes = torch.where(
        (counts > 0.0).any(-1, keepdim=True), boxes_around(points, counts, aspect), boxes
    )
    points, counts, scores = _found(finder, pictures, boxes, least)
    return People(points, counts, boxes, aspect), scores


def _found(
    finder: PointFinder, pictures: Tensor, boxes: Tensor, least: float
) -> tuple[Tensor, Tensor, Tensor]:
    found = [found_in(finder, pictures, each) for each in boxes.unbind(1)]
    points = torch.stack([each for each, _ in found], dim=1).cpu().double()
    scores = torch.stack([each for _, each in found], dim=1).cpu().double()
    return points, ((scores >= least) & in_picture(points)).double(), scores
