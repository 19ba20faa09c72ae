"""Seamless: the picture goes on beyond its edges as it begins on the other side, like a tile.

Values and slopes are continued from both sides to the seam, where they should meet, as in a spline.
This is done for blocks of one pixel, two, four and so on: fine ones close the line that the eye
sees, coarse ones bring the two sides to the same color and shade.
"""

import torch
from torch import Tensor

from ..pictures.regions import region_boxes
from ..pictures.smoothing import pooled, region_weights, weighted_mean

__all__ = ["DIRECTIONS", "Seamless"]

# Which edges meet, by what a user calls it: along the rows (-1), along the columns (-2).
DIRECTIONS = {
    "both": (-1, -2),
    "left and right": (-1,),
    "top and bottom": (-2,),
}

# The largest blocks are at most this part of the tile's side; two at each edge are looked at.
BLOCKS_PER_SIDE = 16


class Seamless:
    """``E = mean over seams and blocks of  sum w (|jump|^2 + |bend|^2) / (3 sum w)``.

    For blocks ``a_1, a_2`` inwards from one edge and ``b_1, b_2`` from the opposite one the jump
    is ``(3 a_1 - a_2) / 2 - (3 b_1 - b_2) / 2``, both sides continued to the seam, and the bend
    ``(a_2 - a_1) - (b_1 - b_2)``. Unit: squared sRGB difference; 0 where everything goes on
    smoothly. Only an eighth of the side at each edge is looked at: the rest is not moved.

    With a region the tile is the box around it: the edges of that box meet. A place of the seam
    counts as far as the region holds the blocks on both sides of it.

    Args:
        direction: which edges meet, one of DIRECTIONS.

    Raises:
        ValueError: the direction is unknown.
    """

    describes_places = True  # the edges are those of the whole picture
    goal = 0.0  # of a picture that is all that it asks for

    def __init__(self, direction: str = "both"):
        if direction not in DIRECTIONS:
            raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction}")
        self.axes = DIRECTIONS[direction]

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        weights = region_weights(region, image)
        left, top, right, bottom = region_boxes(region, image).round().long().unbind(1)
        seams = []
        if -1 in self.axes:
            seams.append(_seam(image, weights, left, right))
        if -2 in self.axes:
            seams.append(_seam(image.mT, weights.mT, top, bottom))
        return torch.stack(seams).mean(0)


def _seam(image: Tensor, weights: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """The energy of a seam between the columns at two edges of the box, ``[N]`` each: ``[B]``."""
    energies, counts = [], []
    block = 1
    while block == 1 or BLOCKS_PER_SIDE * block <= image.shape[-1]:
        fits = (last - first >= BLOCKS_PER_SIDE * block) | (block == 1)  # [N]
        energies.append(fits * _mismatch(image, weights, first, last, block))
        counts.append(fits.to(image))
        block *= 2
    return torch.stack(energies).sum(0) / torch.stack(counts).sum(0)


def _mismatch(image: Tensor, weights: Tensor, first: Tensor, last: Tensor, block: int) -> Tensor:
    """Jumps and bends at the seam between square blocks of so many pixels: ``[B]``."""
    width = 2 * block
    begin, begin_weights = (_columns(x, first, width) for x in (image, weights))
    end, end_weights = (_columns(x, last - width, width) for x in (image, weights))
    begin, begin_weights = pooled(begin, begin_weights, block)  # [B, 3, h, 2]
    end, end_weights = pooled(end, end_weights, block)
    (a_1, a_2), (b_2, b_1) = (side.split(1, dim=-1) for side in (begin, end))
    jump = (3.0 * a_1 - a_2) / 2.0 - (3.0 * b_1 - b_2) / 2.0
    bend = (a_2 - a_1) - (b_1 - b_2)
    counts = begin_weights.prod(-1, keepdim=True) * end_weights.prod(-1, keepdim=True)
    return weighted_mean((jump.square() + bend.square()).mean(1, keepdim=True), counts)


def _columns(x: Tensor, start: Tensor, count: int) -> Tensor:
    """``count`` columns of ``[B, C, H, W]`` from a start ``[1 or B]`` on, without a wait for it."""
    places = start[:, None] + torch.arange(count, device=x.device)  # [N, count]
    places = places.clamp(0, x.shape[-1] - 1)[:, None, None]
    return x.gather(-1, places.expand(*x.shape[:-1], count))
