"""Soft edges of label maps: pixels that are mixtures of two classes belong to neither.

Drawing programs smooth the edges of what is painted, and resizing mixes neighbors. The mixture of
two classes' colors, or numbers, is often near those of a third one that nobody painted there. Such
a pixel is told from a painted one by its surroundings: what is painted is flat somewhere, and not
in between of what lies around it.
"""

from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["FREE", "TOLERANCE", "without_mixed_colors", "without_mixed_levels"]

# The number that segmentation data sets give to pixels without a label.
FREE = 255

# Largest distance in sRGB of a pixel from the color it is taken for: above the rounding of 8 bits
# and of JPEG.
TOLERANCE = 0.09

# Differences in sRGB: rounding to 8 bits, and the noise of JPEG inside of an area.
ROUNDING, NOISE = 2.1 / 255.0, 0.05

# How far a mixture may be from the straight line between what it is mixed of: rounding, noise.
OFF_THE_LINE = 0.06

# How far resampling and JPEG overshoot the color beside an edge, as a share of the step.
OVERSHOOT = 0.25

# A mixture is at most this far from one of its parts: a share of the shorter side, and in pixels.
REACH, LEAST_REACH = 0.04, 3

# At least this share of a map whose classes are areas lies inside of one.
LEAST_PLAIN = 0.3

# Colors of no class that edges may be mixed of, such as the paper; the most frequent ones.
OTHER_COLORS = 8


def without_mixed_colors(pictures: Tensor, classes: Tensor, palette: Tensor) -> Tensor:
    """``classes`` with FREE where a pixel is a mixture of its neighbors' colors.

    Args:
        pictures: ``[R, 3, h, w]`` RGB in [0, 1].
        classes: ``[R, h, w]``, each pixel's class by its color, or FREE.
        palette: ``[J, 3]``, the colors of the classes.

    Returns:
        ``[R, h, w]``.
    """
    kept = [_unmixed(*pair, palette.to(pictures)) for pair in zip(pictures, classes, strict=True)]
    return torch.stack(kept)


def without_mixed_levels(levels: Tensor) -> Tensor:
    """Numbers of classes ``[R, h, w]``, FREE where a pixel is in between of its neighbors'."""
    return torch.stack([_unmixed_levels(each) for each in levels])


def _unmixed(picture: Tensor, classes: Tensor, palette: Tensor) -> Tensor:
    asked = classes != FREE
    exact = palette[classes.clamp(max=len(palette) - 1)].movedim(-1, 0)  # [3, h, w]
    far = (picture - exact).abs().amax(0) > ROUNDING
    if not (asked & far).any():
        return classes  # painted without soft edges
    flat, very_flat = (_is_flat(picture, side, by) for side, by in ((3, NOISE), (2, ROUNDING)))
    numbers = classes[asked].unique().tolist()
    certain = {
        k: _opened((classes == k) & flat, 3) | _opened((classes == k) & very_flat & ~far, 2)
        for k in numbers
    }
    certain = {k: places for k, places in certain.items() if places.any()}
    found = [(k, palette[k], places) for k, places in certain.items()]
    found += [(FREE, *other) for other in _others(picture, (~asked) & very_flat)]
    doubtful = asked.clone()
    for k, places in certain.items():
        doubtful &= ~((classes == k) & _dilated(places, 1))
    mixed = torch.zeros_like(asked)
    reach = max(LEAST_REACH, round(REACH * min(classes.shape)))
    parts = [
        _Part(j, color, _dilated(where, LEAST_REACH), _dilated(where, reach))
        for j, color, where in found
    ]
    for k in classes[doubtful].unique().tolist():
        places = doubtful & (classes == k)
        mixed[places] = _are_mixed(picture, places, palette[k], [p for p in parts if p.number != k])
    return torch.where(mixed, FREE, classes)


class _Part(NamedTuple):
    """What edges may be mixed of: a class, or FREE for another color; where it is close, near."""

    number: int
    color: Tensor
    close: Tensor
    near: Tensor


def _are_mixed(picture: Tensor, places: Tensor, color: Tensor, parts: list[_Part]) -> Tensor:
    """Whether the pixels at ``places [h, w]``, N of the class of a color, are mixtures: ``[N]``.

    A mixture is made of something near and something else of the picture; or of three things that
    are close.
    """
    colors = picture[:, places].T
    mixed = torch.zeros(len(colors), dtype=torch.bool, device=colors.device)
    likely = TOLERANCE + OFF_THE_LINE  # a pixel is as near as that to the color of its class
    for first in parts:
        near = first.near[places]
        if not near.any():
            continue
        for second in parts:
            if second is first or _off_line(color[None], first.color, second.color) > likely:
                continue
            mixed |= near & (_off_line(colors, first.color, second.color) < OFF_THE_LINE)
    close = [(part.color, where) for part in parts if (where := part.close[places] & ~mixed).any()]
    for three in combinations(close, 3):
        together = three[0][1] & three[1][1] & three[2][1]
        if together.any():
            mixed |= together & _in_triangle(colors, *(color for color, _ in three))
    return mixed


def _off_line(colors: Tensor, near: Tensor, other: Tensor) -> Tensor:
    """Distances ``[N]`` from mixtures of two colors, and from what overshoots the near one."""
    along = other - near
    share = (colors - near) @ along / along.square().sum().clamp_min(1e-12)
    return (colors - near - share.clamp(-OVERSHOOT, 1.0)[:, None] * along).norm(dim=1)


def _in_triangle(colors: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Whether colors are mixtures of three."""
    sides = torch.stack((second - first, third - first), dim=1)  # [3, 2]
    shares = (colors - first) @ torch.linalg.pinv(sides).T  # [N, 2]
    off = (colors - first - shares @ sides.T).norm(dim=1)
    inside = (shares >= 0.0).all(1) & (shares.sum(1) <= 1.0)
    return inside & (off < OFF_THE_LINE)


def _others(picture: Tensor, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The most frequent colors of flat areas of no class, and where they are."""
    if not flat.any():
        return []
    found, counts = (picture[:, flat].T * 255.0).round().unique(dim=0, return_counts=True)
    frequent = found[counts.argsort(descending=True)[:OTHER_COLORS]] / 255.0
    return [
        (color, flat & ((picture - color[:, None, None]).abs().amax(0) <= ROUNDING))
        for color in frequent
    ]


def _unmixed_levels(levels: Tensor) -> Tensor:
    down, across = levels.diff(dim=0).abs(), levels.diff(dim=1).abs()
    steepest = max(int(each.max()) if each.numel() else 0 for each in (down, across))
    if steepest < 1 or not _is_soft(levels, down, across):
        return levels
    # An edge between the two most different numbers, as wide as the steepest one, in pixels. In an
    # edge there is room for the number in the middle on half of that at most.
    width = float(levels.max() - levels.min()) / steepest
    side = int(width / 2.0) + 2
    numbers = levels.unique().tolist()
    certain = {k: _opened(levels == k, side) for k in numbers}
    certain = {k: places for k, places in certain.items() if places.any()}
    doubtful = torch.ones_like(levels, dtype=torch.bool)
    for k, places in certain.items():
        doubtful &= ~((levels == k) & _dilated(places, 1))
    return torch.where(doubtful, FREE, levels) if certain else levels


def _is_soft(levels: Tensor, down: Tensor, across: Tensor) -> bool:
    """Whether a map of areas changes from number to number by way of those in between."""
    plain = torch.zeros_like(levels, dtype=torch.bool)
    for k in levels.unique().tolist():
        plain |= _opened(levels == k, 2)
    if plain.float().mean() < LEAST_PLAIN:
        return False
    at_once = ((down > 1) & plain[1:] & plain[:-1]).sum()
    at_once += ((across > 1) & plain[:, 1:] & plain[:, :-1]).sum()
    return bool(at_once <= (~plain).sum()) or not bool(at_once)


def _is_flat(picture: Tensor, side: int, by: float) -> Tensor:
    """Pixels ``[h, w]`` of squares in which no channel of ``[3, h, w]`` varies by more."""
    height, width = picture.shape[-2:]
    if min(height, width) < side:
        return torch.zeros_like(picture[0], dtype=torch.bool)
    highest = F.max_pool2d(picture[None], side, 1)
    lowest = -F.max_pool2d(-picture[None], side, 1)
    flat = ((highest - lowest).amax(1, keepdim=True) <= by).to(picture)
    return F.max_pool2d(F.pad(flat, (side - 1,) * 4), side, 1)[0, 0] > 0.0


def _opened(mask: Tensor, side: int) -> Tensor:
    """Pixels ``[h, w]`` of squares that lie in the mask as a whole."""
    if min(mask.shape) < side:
        return torch.zeros_like(mask)
    whole = -F.max_pool2d(-mask[None, None].float(), side, 1)
    return F.max_pool2d(F.pad(whole, (side - 1,) * 4), side, 1)[0, 0] > 0.0


def _dilated(mask: Tensor, reach: int) -> Tensor:
    """Pixels ``[h, w]`` whose rows and columns are at most ``reach`` from some of the mask."""
    for _ in range(2):  # along rows, then, turned over, along columns
        before = F.pad(mask.int().cumsum(1), (reach + 1, reach), mode="replicate")
        before[:, : reach + 1] = 0
        mask = (before[:, 2 * reach + 1 :] - before[:, : -2 * reach - 1] > 0).T
    return mask
