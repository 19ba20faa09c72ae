"""Attention with a derivative, in the place of the kernel that the host or another pack chose."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import comfy.ldm.modules.attention as host_attention
import comfy.model_management
import torch
from torch import Tensor

from .overrides import Overrides

__all__ = ["differentiable_attention", "differentiable_by_name"]

# The host's attention functions made of torch operations; the others call inference kernels.
DIFFERENTIABLE = frozenset(
    ("attention_basic", "attention_pytorch", "attention_split", "attention_sub_quad")
)
# The names by which the host's networks and other packs call the function that it chose.
NAMES = ("optimized_attention", "optimized_attention_masked")

# More nodes than any attention function makes: what lies behind them is not looked at.
NODES = 200


@contextmanager
def differentiable_by_name() -> Iterator[None]:
    """Inside the block the host's choice of attention has a derivative, whoever calls it by name.

    An ``optimized_attention_override`` does not reach all: ControlNets and the patches of other
    packs (image prompts) call the function without the options that it is in.
    """
    overrides = Overrides()
    device = comfy.model_management.get_torch_device().type
    chosen = {name: getattr(host_attention, name) for name in NAMES}
    replaced = {id(each) for each in chosen.values() if _is_replaced(each, device)}
    try:
        for module in list(sys.modules.values()) if replaced else ():
            if not isinstance(module, ModuleType):
                continue
            # Not getattr: that would import a module which waits for its first use (LazyLoader).
            content = object.__getattribute__(module, "__dict__")
            for name in NAMES:
                if id(content.get(name)) in replaced:
                    overrides.set(module, name, host_attention.attention_pytorch)
        yield
    finally:
        overrides.restore()


def _is_replaced(kernel: Callable, device: str) -> bool:
    name = getattr(kernel, "__name__", None)
    # On the CPU the host chooses attention_sub_quad, for memory. With a gradient the fused kernel
    # needs less: it keeps no attention matrix for the backward pass, and is faster.
    fused = name == "attention_sub_quad" and device == "cpu"
    return fused or name not in DIFFERENTIABLE


def differentiable_attention(override: Callable | None) -> Callable:
    """An ``optimized_attention_override`` around the one that was there."""

    def attention(kernel: Callable, q: Tensor, k: Tensor, v: Tensor, *args, **kwargs) -> Tensor:
        if _is_replaced(kernel, q.device.type):
            kernel = host_attention.attention_pytorch
        if override is None:
            return kernel(q, k, v, *args, **kwargs)
        out = override(kernel, q, k, v, *args, **kwargs)
        wanted = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
        if wanted and not _differentiable(out, (q, k, v)):  # an inference kernel of its own
            return kernel(q, k, v, *args, **kwargs)
        return out

    return attention


def _differentiable(out: Tensor, inputs: tuple[Tensor, ...]) -> bool:
    """Whether autograd's way back from ``out`` leads to the inputs by formulas that exist.

    A registered operator without a formula has a node too, which raises when it is asked.
    """
    waiting = [out.grad_fn]
    seen = {None, *(tensor.grad_fn for tensor in inputs)}
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        if node.name().startswith(("GeneratedBackwardFor", "NotImplemented")):
            return False
        seen.add(node)
        if len(seen) > NODES:
            break
        waiting.extend(below for below, _ in node.next_functions)
    return out.requires_grad
