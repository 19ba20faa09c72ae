"""What goes to a device and comes from it: each copy makes the processor wait for a GPU.

Constants are made on the device or copied there once; numbers of a step come back together.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .pictures.references import ordinary

__all__ = ["Constant", "fetched", "made_at", "numbers"]

# Copies (dtype and device) remembered by one constant; a run uses one.
COPIES_KEPT = 2


def numbers(values: Iterable[float], like: Tensor) -> Tensor:
    """A few numbers ``[N]`` with the dtype of ``like`` and on its device, where they are made."""
    return torch.stack([like.new_full((), value) for value in values])


def made_at(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor of few numbers with the dtype of ``like`` and on its device, without a gradient."""
    if tensor.device == like.device:
        return tensor.detach().to(like.dtype)
    return numbers(tensor.flatten().tolist(), like).view(tensor.shape)


def fetched(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the CPU, without a gradient; those of a device come in one copy.

    Args:
        tensors: small ones, on one device or on the CPU. Their numbers pass through single
            precision where a device has no double precision (MPS).
    """
    away = [tensor.detach() for tensor in tensors if tensor.device.type != "cpu"]
    exact = torch.float32 if any(tensor.device.type == "mps" for tensor in away) else torch.float64
    together = [torch.cat([tensor.flatten().to(exact) for tensor in away]).cpu()] if away else []
    parts = iter(part for flat in together for part in flat.split([t.numel() for t in away]))
    return [
        tensor.detach()
        if tensor.device.type == "cpu"
        else next(parts).to(tensor.dtype).view(tensor.shape)
        for tensor in tensors
    ]


class Constant:
    """A tensor that does not change, copied once to each device and dtype.

    Args:
        tensor: the constant, in ordinary memory or anywhere.
    """

    def __init__(self, tensor: Tensor):
        self.tensor = ordinary(tensor)
        self._copy = lru_cache(COPIES_KEPT)(self._copied)

    def like(self, other: Tensor) -> Tensor:
        """The constant with the dtype of ``other`` and on its device."""
        return self._copy(other.dtype, other.device)

    def on(self, device: torch.device) -> Tensor:
        """The constant on that device, in its own dtype."""
        return self._copy(self.tensor.dtype, device)

    def _copied(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        # Outside inference mode, whoever asks first: the copy is remembered for others.
        with torch.inference_mode(False), torch.no_grad():
            return self.tensor.to(device, dtype)
