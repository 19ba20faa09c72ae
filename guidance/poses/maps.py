"""Key points from what pose networks put out: the place that a sharpened map expects.

A network answers with a map for each key point, or with one row and one column of scores for it
(SimCC; Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose
Estimation", ECCV 2022). The place of the highest value has no gradient; the place that is expected
under a softmax of the map has one ("soft-argmax").
"""

import torch
from torch import Tensor

__all__ = ["SHARPNESS", "points_of_maps", "points_of_rows"]

# The softmax is that of a map which is stretched to the range 0 to SHARPNESS: it does not depend on
# the network's unit, and even in a map of 50,000 places all places far from a peak weigh less than
# a thousandth of it.
SHARPNESS = 20.0


def points_of_maps(
    maps: Tensor, size: tuple[int, int], *, ends_meet: bool = False
) -> tuple[Tensor, Tensor]:
    """Key points in heat maps.

    Args:
        maps: ``[N, K, h, w]``, high where the point is; any unit and offset.
        size: height and width in pixels of the pictures that they are of.
        ends_meet: the last place of a map stands for the last pixel (Huang et al., "The Devil is
            in the Details: Delving into Unbiased Data Processing for Human Pose Estimation", CVPR
            2020); otherwise place i stands for pixel ``i * side / places``.

    Returns:
        the points ``[N, K, 2]``, (x, y) in fractions of the picture, and the maps' highest values
        ``[N, K]``.
    """
    chances = _sharpened(maps.flatten(2)).view(maps.shape)
    places = (_expected(chances.sum(-2)), _expected(chances.sum(-1)))  # along x and y
    lengths = (maps.shape[-1], maps.shape[-2])
    return _fractions(places, lengths, size, ends_meet), maps.amax((-2, -1))


def points_of_rows(rows: Tensor, columns: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Key points in scores of places along x and along y.

    Args:
        rows, columns: ``[N, K, w]`` and ``[N, K, h]``, of any unit and offset.
        size: height and width in pixels of the pictures that they are of.

    Returns:
        as ``points_of_maps``; of the two highest values the lower one.
    """
    places = tuple(_expected(_sharpened(scores)) for scores in (rows, columns))
    lengths = (rows.shape[-1], columns.shape[-1])
    peaks = torch.minimum(rows.amax(-1), columns.amax(-1))
    return _fractions(places, lengths, size, ends_meet=False), peaks


def _sharpened(scores: Tensor) -> Tensor:
    """Chances of the places along the last axis, whatever the scores' unit and offset."""
    lowest, highest = scores.amin(-1, keepdim=True), scores.amax(-1, keepdim=True)
    spread = (highest - lowest).clamp_min(torch.finfo(scores.dtype).tiny)
    return (SHARPNESS * (scores - highest) / spread).softmax(-1)


def _expected(chances: Tensor) -> Tensor:
    places = torch.arange(chances.shape[-1], dtype=chances.dtype, device=chances.device)
    return (chances * places).sum(-1)


def _fractions(
    places: tuple[Tensor, ...],
    lengths: tuple[int, int],
    size: tuple[int, int],
    ends_meet: bool,
) -> Tensor:
    """Places along x and y to fractions of the picture ``[N, K, 2]``."""
    sides = (size[1], size[0])
    steps = [
        (side - 1) / max(length - 1, 1) if ends_meet else side / length
        for side, length in zip(sides, lengths, strict=True)
    ]
    return torch.stack(
        [
            (place * step + 0.5) / side
            for place, step, side in zip(places, steps, sides, strict=True)
        ],
        dim=-1,
    )
