"""Norms and inner products per sample: no image of a batch depends on another one."""

import torch
from torch import Tensor

__all__ = ["expand_like", "inner_products", "peak", "rms"]


def expand_like(values: Tensor, reference: Tensor) -> Tensor:
    """View per-sample ``values [B]`` so that they broadcast over ``reference [B, ...]``."""
    return values.to(reference).reshape(-1, *[1] * (reference.ndim - 1))


def rms(v: Tensor) -> Tensor:
    """``RMS(v) = sqrt(mean(v^2))`` per sample, ``[B]``, accumulated in float32 or better."""
    flat = v.flatten(1)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    scale = peak(flat)  # the squares of tiny float32 values would underflow
    return (flat / scale[:, None]).square().mean(1).sqrt() * scale


def peak(v: Tensor) -> Tensor:
    """The largest magnitude per sample, ``[B]``, at least the smallest normal number."""
    return v.flatten(1).abs().amax(1).clamp_min(torch.finfo(v.dtype).tiny)


def inner_products(vectors: Tensor) -> Tensor:
    """Inner products of each sample's vectors: ``[B, n, ...]`` to ``[B, n, n]``, where they are.

    Computed in float64 where the device has it, otherwise (MPS) in float32.
    """
    flat = vectors.flatten(2)
    if flat.device.type != "mps":
        flat = flat.double()
    return flat @ flat.transpose(1, 2)
