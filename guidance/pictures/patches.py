"""Patches: the places of a picture that a network describes one by one."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["as_tokens", "patch_shares", "patch_weights"]


def as_tokens(features: Tensor) -> Tensor:
    """Tokens ``[B, N, C]`` of themselves or of a map ``[B, C, h, w]``, every place a token."""
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features


def patch_weights(features: Tensor, counts: Tensor) -> Tensor | None:
    """How much of each patch counts, ``[B, N]``; None if it is not known where they are.

    Args:
        features: tokens ``[B, N, C]`` or a map ``[B, C, h, w]``.
        counts: ``[B, 1, H, W]`` in [0, 1], how much of the network's input counts.
    """
    grid = features.shape[-2:] if features.ndim == 4 else _grid(features.shape[1], counts)
    return None if grid is None else F.interpolate(counts, size=grid, mode="area").flatten(1)


def patch_shares(features: Tensor, counts: Tensor) -> Tensor | None:
    """The patches' shares ``[B, N]`` of what counts; see ``patch_weights``."""
    weights = patch_weights(features, counts)
    if weights is None:
        return None
    return weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)


def _grid(tokens: int, counts: Tensor) -> tuple[int, int] | None:
    """Rows and columns of ``tokens`` square patches of the input, None if it has no such grid."""
    height, width = counts.shape[-2:]
    rows = max(1, round(math.sqrt(tokens * height / width)))
    return (rows, tokens // rows) if tokens % rows == 0 else None
