"""Momentum: a share of the directions of earlier steps is kept in later ones."""

import torch
from torch import Tensor

from .norms import expand_like, rms

__all__ = ["Momentum"]


class Momentum:
    """A moving average of the directions of one run, each scaled to RMS 1.

    Args:
        share: how much of the average so far is kept, in [0, 1); 0 for none.
    """

    def __init__(self, share: float):
        self.share = share
        self._average: Tensor | None = None

    def __call__(self, direction: Tensor) -> Tensor:
        """The average with ``direction [B, ...]`` in it, at the direction's size."""
        if self.share == 0.0:
            return direction
        size = rms(direction)
        unit = direction / expand_like(size.clamp_min(torch.finfo(size.dtype).tiny), direction)
        if self._average is None or self._average.shape != unit.shape:  # another tile or batch
            self._average = torch.zeros_like(unit)
        self._average = self.share * self._average + (1.0 - self.share) * unit
        return self._average * expand_like(size, direction)
