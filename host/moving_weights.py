"""Weights that do not stay in place: the backward pass asks the host for them once more.

The host moves weights while a model runs: an offloaded weight lies in a transfer buffer that the
next layer overwrites, a dynamic one in pages that may be evicted, a hooked one is rewritten in
place between two conditionings, a quantized one exists in full precision only during its own
layer. A derivative that keeps such a weight until the backward pass is silently wrong, or costs
the memory that the host meant to save. Layers of other packs (GGUF) make their weights anew in each
forward pass in ways of their own: there the backward pass lets the layer make them once more.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import comfy.ops
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .frozen_layers import CONVOLUTIONS, convolution, linear
from .overrides import Overrides, every_module
from .remade_weights import RemakingForward, own_cast
from .weight_hooks import use_hooks

__all__ = ["recast_in_backward"]


@dataclass
class _Recast:
    """A module's weight, asked from the host each time, under the hooks of its forward pass."""

    module: nn.Module
    patcher: Any = None
    hooks: Any = field(init=False)

    def __post_init__(self) -> None:
        self.hooks = getattr(self.patcher, "current_hooks", None)

    @contextmanager
    def __call__(self, like: Tensor) -> Iterator[Tensor]:
        use_hooks(self.patcher, self.hooks)
        with self.cast(like) as (weight, _):
            yield weight

    @contextmanager
    def cast(self, like: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Weight and bias as the host casts them for an input ``like``, in full precision."""
        with torch.no_grad():
            weight, bias, buffer = comfy.ops.cast_bias_weight(self.module, like, offloadable=True)
        try:
            yield _dense(weight, like.dtype), bias
        finally:
            comfy.ops.uncast_bias_weight(self.module, weight, bias, buffer)


def _dense(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """An ordinary tensor in ``dtype``: a quantized weight, a tensor subclass, is dequantized."""
    if type(weight) not in (Tensor, nn.Parameter):
        weight = weight.dequantize()
    return weight.to(dtype)


class _RecastConvolution(TorchFunctionMode):
    """While one module's own forward runs: its convolution recasts that module's weight."""

    def __init__(self, module: nn.Module, patcher: Any) -> None:
        super().__init__()
        self._module, self._patcher = module, patcher

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in CONVOLUTIONS:
            return func(*args, **kwargs)
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        if weight.shape == self._module.weight.shape:
            return convolution(func, args, kwargs, _Recast(self._module, self._patcher))
        # A causal convolution at the start of a video uses the last part of its kernel.
        if len(args) > 1:
            return convolution(func, (args[0], weight.clone(), *args[2:]), kwargs)
        return convolution(func, args, kwargs | {"weight": weight.clone()})


def _linear_forward(module, patcher, x, *args, **kwargs):
    if not (torch.is_grad_enabled() and x.requires_grad):
        return type(module).forward_comfy_cast_weights(module, x, *args, **kwargs)
    weights = _Recast(module, patcher)
    with weights.cast(x) as (weight, bias):
        return linear(x, weight, bias, weights)


def _convolution_forward(module, patcher, x, *args, **kwargs):
    forward = type(module).forward_comfy_cast_weights
    if not (torch.is_grad_enabled() and x.requires_grad):
        return forward(module, x, *args, **kwargs)
    with _RecastConvolution(module, patcher):
        return forward(module, x, *args, **kwargs)


def _recasting_forward(module: nn.Module) -> Callable | None:
    """The replacement of a host layer's cast path; None for any other module."""
    forward = getattr(type(module), "forward_comfy_cast_weights", None)
    if forward is None or forward.__module__ != comfy.ops.__name__:
        return None
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return _convolution_forward
    if isinstance(module, nn.Linear) or "out_features" in module.__dict__:  # quantized: no Linear
        return _linear_forward
    return None


@contextmanager
def recast_in_backward(
    patcher: Any, modules: Iterable[nn.Module], hooked: set[nn.Module]
) -> Iterator[None]:
    """Let host layers whose weights do not stay in place recast them in backward, in the block.

    The override sits on the host's own seam, ``forward_comfy_cast_weights`` of the instance, below
    ``forward``: what other packs hang on ``forward`` keeps working. A module that already has an
    override of its own (an enclosing block's, too) is left alone.

    Layers of other packs, with casts of their own, are left to make their weights again: see
    remade_weights.py.

    Args:
        patcher: the ModelPatcher whose hooks rewrite weights, or None where there are no hooks.
        modules: the roots; their descendants are included.
        hooked: the modules whose weights the hooks rewrite.
    """
    overrides = Overrides()
    try:
        for module in every_module(modules):
            name = own_cast(module)
            if name is not None:
                method = getattr(module, name)  # with what other packs have hung on the instance
                if not isinstance(method, RemakingForward):
                    overrides.set(module, name, RemakingForward(patcher, method))
                continue
            forward = _recasting_forward(module)
            if forward is None or "forward_comfy_cast_weights" in module.__dict__:
                continue
            quantized = not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
            cast = module.comfy_cast_weights or module.weight_function or module.bias_function
            if not (cast or quantized or module in hooked):
                continue  # resident: its weight is still there in the backward pass
            overrides.set(module, "forward_comfy_cast_weights", partial(forward, module, patcher))
            if quantized:
                overrides.set(module, "comfy_force_cast_weights", True)  # its input stays as it is
            else:
                overrides.set(module, "comfy_cast_weights", True)  # hooked: take the cast path
        yield
    finally:
        overrides.restore()
