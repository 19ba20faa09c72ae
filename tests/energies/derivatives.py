"""Derivatives of energies by autograd."""

import torch
from torch import Tensor

from zmagic.guidance.energies import Energy

__all__ = ["gradient"]


def gradient(energy: Energy, image: Tensor, region: Tensor | None = None) -> Tensor:
    """The gradient ``[B, 3, H, W]`` of the sum over the batch."""
    image = image.detach().clone().requires_grad_(True)
    (result,) = torch.autograd.grad(energy(image, region).sum(), image)
    return result
