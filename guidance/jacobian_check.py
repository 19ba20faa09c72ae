"""Is the gradient that came through the denoiser the slope of its prediction?

A node may compute a part of the model without gradients. Then the prediction still requires a
gradient, but a wrong one, and nothing else shows it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .norms import expand_like, rms

__all__ = ["PullBack", "has_right_slope"]

# Length of the difference step as a share of RMS(x): far above the rounding of half precision,
# small against the curvature of a denoiser.
STEP = 0.01
# Relative error that counts as wrong. Rounding and curvature stay below a tenth; predictions that
# were detached in part were wrong by .9 to 2.
TOLERANCE = 0.3


@dataclass(frozen=True)
class PullBack:
    """One vector-Jacobian product of the denoiser: ``pulled = J^T cotangent`` at ``x``.

    Args:
        x: the noisy latent ``[B, ...]``.
        prediction: the denoiser's ``D(x)``, like x.
        cotangent: the vector that was pulled back, like the prediction.
        pulled: the product, like x.
    """

    x: Tensor
    prediction: Tensor
    cotangent: Tensor
    pulled: Tensor


@torch.no_grad()
def has_right_slope(product: PullBack, denoise: Callable[[Tensor], Tensor]) -> bool:
    """Compare ``<c, D(x + h u) - D(x)> / h`` with ``<J^T c, u>`` for ``u`` along ``J^T c``.

    One forward of the denoiser; a second one, a tenth as far, where the first says no, which may
    have met a curvature. Averaged over the pictures of the batch that have a finite, non-zero
    product; True where none has.
    """
    return any(_agrees(product, denoise, share) for share in (STEP, STEP / 10))


def _agrees(product: PullBack, denoise: Callable[[Tensor], Tensor], share: float) -> bool:
    x, pulled = _exact(product.x), _exact(product.pulled)
    size = _exact(rms(product.pulled))
    length = share * _exact(rms(product.x))
    moved = x + expand_like(length, x) * pulled / expand_like(size, x)
    change = _exact(denoise(moved.to(product.x))) - _exact(product.prediction)
    predicted = length * size * product.x[0].numel()  # <J^T c, h u>
    ratios = (_exact(product.cotangent) * change).flatten(1).sum(1) / predicted
    ratios = ratios[torch.isfinite(ratios)]
    return len(ratios) == 0 or abs(float(ratios.mean()) - 1.0) <= TOLERANCE


def _exact(tensor: Tensor) -> Tensor:
    """Copy to float64 on the CPU, since not every device has it."""
    return tensor.detach().cpu().double()
