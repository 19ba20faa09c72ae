"""Energies of a prediction's neighborhood in place of the prediction's own.

    E(D) = -log mean_k exp(-E(D + gamma * spread * n_k)),    n_k ~ N(0, 1)

by Monte Carlo: the implicit dynamics of TFG (arXiv 2409.15761), the smoothing of LGD (Song et al.,
ICML 2023).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .random_streams import RandomStreams
from .schedule import NoiseLevel
from .settings import GuidanceSettings

__all__ = ["decoded_neighbors", "neighbors", "smoothed"]


def neighbors(
    settings: GuidanceSettings,
    streams: RandomStreams,
    x: Tensor,
    sigma: float,
    level: NoiseLevel,
    repeat: int,
) -> tuple[Tensor, ...]:
    """What is added to a prediction for each of its neighbors, tensors like x; empty without.

    They are the same for all evaluations of a look: otherwise a difference of two gradients would
    be no Hessian product.
    """
    if settings.smoothing == 0.0:
        return ()
    spread = settings.smoothing * level.posterior_spread
    return tuple(
        spread * streams.normal(x, sigma, repeat, f"neighbor {k}")
        for k in range(settings.smoothing_samples)
    )


def decoded_neighbors(
    decode: Callable[[Tensor], Tensor], added: Sequence[Tensor]
) -> Callable[[Tensor], Tensor]:
    """A decoder of latents ``[B, ...]`` to the images of their K neighbors, ``[B, K, 3, H, W]``."""
    return lambda latent: torch.stack([decode(latent + each) for each in added], dim=1)


def smoothed(energies: Tensor) -> Tensor:
    """The energy ``[B]`` of a neighborhood from those of its K images, ``[K, B]``."""
    return math.log(len(energies)) - torch.logsumexp(-energies, dim=0)
