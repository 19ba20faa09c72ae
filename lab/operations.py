"""Operations and saved bytes of a network, counted on the meta device: no weights, no clock.

The counts are those of torch's FlopCounterMode: a multiplication and an addition are two
operations; what is neither a product of matrices nor a convolution counts as nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from zmagic.host.checkpointing import Call
from zmagic.host.gradients import differentiable, normal

from .saved_bytes import SavedBytes

__all__ = ["META", "Work", "work_of"]

META = torch.device("meta")


@dataclass(frozen=True)
class Work:
    """Operations of a forward and of the backward to its input, and bytes saved in between.

    ``checkpointed`` is what is saved at most if blocks save only their inputs, ``tiled`` if the
    blocks are a decoder's tiles; None where there are none.
    """

    forward: int
    backward: int
    saved: int
    checkpointed: int
    tiled: int | None = None


def work_of(
    module: nn.Module,
    function: Callable[[Tensor], Tensor],
    point: Tensor,
    tiled: Callable[[Tensor, Call], Tensor] | None = None,
) -> Work:
    """Count ``function(point)`` and its backward, differentiated as guidance does it.

    Args:
        module: all layers that ``function`` runs, on the meta device.
        function: takes the point to any tensor that depends on it.
        point: a tensor on the meta device.
        tiled: the same in tiles, each called by what it is given.
    """

    def whole(x: Tensor, call: Call) -> Tensor:
        return function(x)

    with fused_attention():
        forward, backward, saved = _counted(module, whole, point, checkpoint=False)
        *_, checkpointed = _counted(module, whole, point, checkpoint=True)
        least = None
        if tiled is not None:
            *_, least = _counted(module, tiled, point, checkpoint=True)
    return Work(forward, backward, saved, checkpointed, least)


def _counted(
    module: nn.Module,
    function: Callable[[Tensor, Call], Tensor],
    point: Tensor,
    *,
    checkpoint: bool,
) -> tuple[int, int, int]:
    """Operations of the forward and of the backward, and the bytes saved at most."""
    account = SavedBytes(module)
    with account.watching(), differentiable(None, [module], checkpoint=checkpoint) as call:
        start = normal(point).requires_grad_(True)
        with FlopCounterMode(display=False) as forward:
            output = function(start, call)
        with FlopCounterMode(display=False) as backward:
            torch.autograd.grad(output, start, torch.ones_like(output))
    return forward.get_total_flops(), backward.get_total_flops(), account.peak


@contextmanager
def fused_attention() -> Iterator[None]:
    """Attention as cards compute it: its matrix is made anew in the backward, and not saved.

    On the meta device torch would choose the formula, which saves it.
    """
    chosen = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _fused
    try:
        yield
    finally:
        F.scaled_dot_product_attention = chosen


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        raise NotImplementedError("attention with fewer heads of keys than of queries")
    fused = torch.ops.aten._scaled_dot_product_efficient_attention
    return fused(query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale)[0]
