"""Averages that see a region only: normalized convolution and pooling.

Knutsson and Westin, "Normalized and differential convolution", CVPR 1993: average the weighted
values and the weights, and divide. Pixels of weight 0, and those beyond the border, have no
influence.
"""

import math

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "block_below",
    "normalized_blur",
    "pooled",
    "region_weights",
    "slope_power",
    "through_blur",
    "weighted_mean",
]

# A Gaussian is cut at this many standard deviations: 0.3 % of its mass is left out.
CUT = 3.0

# Detail finer than half a standard deviation does not survive a blur: pixels may be averaged in
# blocks until sigma is this many blocks, so that the cost does not grow with the blur.
BLOCKS_PER_SIGMA = 2.0

# A Gaussian narrower than this many pixels leaves the pixels as they are.
NO_BLUR = 0.3


def region_weights(region: Tensor | None, image: Tensor) -> Tensor:
    """The region as weights ``[1 or B, 1, H, W]`` like ``image``; all ones for None."""
    if region is None:
        return torch.ones_like(image[:1, :1])
    return region.to(image)


def normalized_blur(values: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """Gaussian average of ``values`` weighted by ``weights``.

    Args:
        values: ``[B, C, H, W]``.
        weights: ``[1 or B, 1, H, W]``, >= 0.
        sigma: standard deviation in pixels, > 0.

    Returns:
        ``[B, C, H, W]``; 0 where no weight is in reach.
    """
    size = 2 * math.ceil(CUT * sigma) + 1
    blurred, reached = (
        gaussian_blur2d(x, (size, size), (sigma, sigma), border_type="constant")
        for x in (values * weights, weights)
    )
    return _divided(blurred, reached)


def block_below(sigma: float) -> int:
    """Side in pixels of the largest blocks that a blur of ``sigma`` pixels does not show."""
    return max(1, int(sigma / BLOCKS_PER_SIGMA))


def pooled(values: Tensor, weights: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Weighted averages of square blocks, 0 without weight; incomplete blocks at the border count.

    Args:
        values: ``[B, C, H, W]``.
        weights: ``[1 or B, 1, H, W]``, >= 0.
        block: side of a block in pixels, >= 1.

    Returns:
        ``[B, C, h, w]`` and their weights ``[1 or B, 1, h, w]``, with ``h = ceil(H / block)``.
    """
    sums, coverage = (F.avg_pool2d(x, block, ceil_mode=True) for x in (values * weights, weights))
    return _divided(sums, coverage), coverage


def through_blur(values: Tensor, weights: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """``values`` seen through a Gaussian blur, in blocks where it is wide; no blur below NO_BLUR.

    Args:
        values: ``[B, C, H, W]``.
        weights: ``[1 or B, 1, H, W]``, >= 0.
        sigma: standard deviation in pixels, >= 0.

    Returns:
        ``[B, C, h, w]`` and their weights ``[1 or B, 1, h, w]``.
    """
    if sigma < NO_BLUR:
        return values, weights
    block = block_below(sigma)
    values, weights = pooled(values, weights, block)
    return normalized_blur(values, weights, sigma / block), weights


def slope_power(values: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """``sigma^2 |grad(G * values)|^2`` of ``[B, 1, H, W]``, border pixels left out.

    G is the Gaussian of ``normalized_blur``. The neighbors of a pixel of the region are within
    reach of it, so that they hold averages over the region even where they are outside.

    Returns:
        ``[B, 1, H - 2, W - 2]``, by central differences.
    """
    smooth = normalized_blur(values, weights, sigma)
    across = (smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]) * (sigma / 2.0)
    down = (smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]) * (sigma / 2.0)
    return across.square() + down.square()


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """``sum w v / sum w`` of ``[B, 1, H, W]``: ``[B]``, 0 where all weights are 0."""
    return _divided((values * weights).sum((1, 2, 3)), weights.sum((1, 2, 3)))


def _divided(sums: Tensor, weights: Tensor) -> Tensor:
    """``sums / weights``, 0 where the weight is (all but) 0."""
    return sums / weights.clamp_min(torch.finfo(weights.dtype).eps)
