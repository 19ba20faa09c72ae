"""The reports of a guided model's last runs, each known by the latent that it made."""

from collections import deque
from typing import Any

import torch
from torch import Tensor

from ..guidance.trace import Trace

__all__ = ["LastRuns"]

# Runs remembered: as many as the tiles, passes or samplers that one model usually serves.
KEPT = 16
MARKS = 256  # numbers of a latent that it is known by
CLOSE = 2e-3  # what half precision and another device leave of them


class LastRuns:
    """The last runs of one guided model, the numbers of their reports alone."""

    def __init__(self) -> None:
        self._runs: deque[tuple[Tensor, Trace]] = deque(maxlen=KEPT)

    def keep(self, samples: Tensor, trace: Trace) -> None:
        """Remember a run that made the latent ``samples [B, ...]``."""
        self._runs.append((_marks(samples), trace))

    def last(self) -> Trace | None:
        """The last run, None before the first."""
        return self._runs[-1][1] if self._runs else None

    def of(self, samples: Any) -> Trace | None:
        """The last run that made the latent ``samples``; None if none of them did."""
        if not isinstance(samples, Tensor) or not samples.numel():
            return None
        marks = _marks(samples)
        for known, trace in reversed(self._runs):
            if known.shape == marks.shape and torch.allclose(
                known, marks, rtol=CLOSE, atol=CLOSE, equal_nan=True
            ):
                return trace
        return None


@torch.no_grad()
def _marks(samples: Tensor) -> Tensor:
    """Some numbers of a latent, evenly spread, and how many it has."""
    flat = samples.detach().flatten()
    picked = flat[:: max(1, flat.numel() // MARKS)].to("cpu", torch.float32)
    return torch.cat([picked, torch.tensor([float(flat.numel())])])
