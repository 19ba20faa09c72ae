"""Sharpness: how strong fine detail is beside coarser detail, compared with that of nature.

Field, "Relations between the statistics of natural images and the response properties of cortical
cells", JOSA A 1987: amplitudes of natural images fall as 1 / frequency. Normalized by the scale
(Lindeberg, "Edge detection and ridge detection with automatic scale selection", IJCV 1998) their
slopes have then the same power at all scales; defocus takes it from the finest ones.
"""

from torch import Tensor

from ..pictures.color_spaces import luma
from ..pictures.smoothing import block_below, pooled, region_weights, slope_power, weighted_mean

__all__ = ["Sharpness"]

# The finest scale (standard deviation of a Gaussian in pixels) that central differences resolve.
FINEST = 1.0

# Power of slopes below which a picture is flat, and counts as blurred: steps from black to white
# peak at 0.16, the rounding to 8 bits has 1e-6.
FLOOR = 1e-6


class Sharpness:
    """``E = (s - target)^2``, ``s = log_2(P(sigma) / P(2 sigma)) / 2``: ``[B]``.

    ``P(sigma)`` is the mean of ``sigma^2 |grad(G_sigma * luma)|^2`` over the region. ``s`` is about
    0 for amplitudes of 1 / frequency, -1 where nothing is left of detail at these scales, and 1 for
    white noise; photographs, which have plain areas, are between -0.5 and -0.2. Neither contrast
    nor brightness matter.

    Args:
        target: the sharpness wanted, in [-1, 1].
        detail: ``sigma`` as a fraction of the image's height, > 0; at least FINEST pixels.

    Raises:
        ValueError: a number is outside its range.
    """

    goal = 0.0  # of a picture that is all that it asks for

    def __init__(self, target: float = -0.2, detail: float = 0.002):
        if not -1.0 <= target <= 1.0:
            raise ValueError(f"target must be from -1 to 1, got {target}")
        if not detail > 0.0:
            raise ValueError(f"detail must be > 0, got {detail}")
        self.target = target
        self.detail = detail

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        return (self.of(image, region) - self.target).square()

    def of(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The sharpness ``s`` of ``image [B, 3, H, W]``, ``[B]``."""
        brightness, weights = luma(image), region_weights(region, image)
        sigma = max(FINEST, self.detail * image.shape[-2])
        fine, coarse = (_power(brightness, weights, scale) for scale in (sigma, 2.0 * sigma))
        # A quarter of the floor at the finer scale: that is what a very smooth picture has there.
        return ((fine + FLOOR / 4.0) / (coarse + FLOOR)).log2() / 2.0


def _power(brightness: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """The mean power of slopes at a scale of so many pixels, ``[B]``."""
    block = block_below(sigma)
    brightness, weights = pooled(brightness, weights, block)
    power = slope_power(brightness, weights, sigma / block)
    return weighted_mean(power, weights[..., 1:-1, 1:-1])
