"""Constants where a picture is: a copy from ordinary memory makes the processor wait for a GPU."""

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor

from .pictures.references import ordinary

__all__ = ["Constant", "made_at", "numbers"]

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
