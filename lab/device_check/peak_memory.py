"""The most memory that a block took, by what the device can tell."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from zmagic.lab.saved_bytes import SavedBytes

__all__ = ["Peak", "peak_memory"]


@dataclass
class Peak:
    """Bytes, and which bytes these are."""

    bytes: int = 0
    meaning: str = ""


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """The peak of the block, known when it is left."""
    peak = Peak()
    module = getattr(torch, device.type, None)
    if hasattr(module, "max_memory_allocated"):
        module.empty_cache()
        module.reset_peak_memory_stats(device)
        yield peak
        peak.bytes = module.max_memory_allocated(device)
        peak.meaning = "allocated on the device, weights included"
        return
    account = SavedBytes()
    with account.watching():
        yield peak
    peak.bytes, peak.meaning = account.peak, "kept for the backward"
