"""Which picture of a batch is which, as the host counts: its noise is drawn by that index.

The host takes picture 3 out of a batch and draws its noise again, alone (Latent From Batch). The
index is not handed on, but the noise shows it: it is the one at that place in the stream of the
seed.
"""

import sys
from types import FrameType

import torch
from torch import Tensor

__all__ = ["batch_indices"]

# Places in the stream that are compared, and numbers that are drawn for it: noise of another kind,
# of another node or drawn on another device, is in none of them.
MOST_PLACES, MOST_NUMBERS = 256, 2**26
MOST_FRAMES = 40  # callers that are asked


def batch_indices(noise: Tensor, seed: int) -> list[int] | None:
    """Find the host's index of each picture of a batch.

    Args:
        noise: the noise ``[B, ...]`` with which the host starts the run.
        seed: the seed from which it was drawn.

    Returns:
        B numbers >= 0, or None if it cannot be told; then the pictures count from 0.
    """
    if not noise.any():  # a run that goes on with what another one left
        return _of_calling_node(len(noise))
    return _places_in_stream(noise.cpu(), seed) or _of_calling_node(len(noise))


def _places_in_stream(noise: Tensor, seed: int) -> list[int] | None:
    generator = torch.Generator().manual_seed(seed)
    places: dict[int, int] = {}
    affordable = max(len(noise), MOST_NUMBERS // noise[0].numel())
    for place in range(min(MOST_PLACES, affordable)):
        drawn = torch.randn([1, *noise.shape[1:]], generator=generator).to(noise.dtype)[0]
        missing = [b for b in range(len(noise)) if b not in places]
        places |= {b: place for b in missing if torch.equal(noise[b], drawn)}
        if len(places) == len(noise):
            return [places[b] for b in range(len(noise))]
    return None


def _of_calling_node(count: int) -> list[int] | None:
    """``batch_index`` of the latent that the sampling node works on: it has no other way here."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(MOST_FRAMES):
        if frame is None:
            return None
        for value in frame.f_locals.values():
            if isinstance(value, dict) and isinstance(value.get("samples"), Tensor):
                indices = value.get("batch_index")
                known = indices is not None and len(indices) == count
                return [int(index) for index in indices] if known else None
        frame = frame.f_back
    return None
