"""Constant weights: products whose derivative does not keep the weight it was computed with.

The host moves weights while a model runs: an offloaded weight lives in a transfer buffer that the
next layer overwrites, a dynamic one in pages that may be evicted, a hooked one is rewritten in
place between two conditionings, a quantised one exists in full precision only during its own
layer. A derivative that keeps such a weight until the backward pass is silently wrong or costs the
memory the host meant to save. Here the backward pass asks the host for the weight once more.

A layer is y = A x + b with A constant. Its derivative is the product with A^T, whose derivative is
the product with A: the two alternate, so derivatives of every order exist.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import comfy.ops
import comfy.utils
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["CONVOLUTIONS", "convolution", "hooked_modules", "recast_in_backward"]

CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)


class _Weights(Protocol):
    """Where a derivative finds its weight."""

    def __call__(self, like: Tensor) -> AbstractContextManager[Tensor]:
        """The weight on the device and in the dtype of ``like``, valid inside the block."""


@dataclass
class _Held:
    """A weight that stays where it is until the backward pass."""

    weight: Tensor

    @contextmanager
    def __call__(self, like: Tensor) -> Iterator[Tensor]:
        yield self.weight


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
        if self.patcher is not None and self.patcher.current_hooks != self.hooks:
            with torch.inference_mode():  # the mode in which the host keeps its copies of weights
                self.patcher.patch_hooks(self.hooks)
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
    """An ordinary tensor in ``dtype``: a quantised weight, a tensor subclass, is dequantised."""
    if type(weight) not in (Tensor, nn.Parameter):
        weight = weight.dequantize()
    return weight.to(dtype)


@dataclass
class _Linear:
    """x [B, in] -> x W^T [B, out]."""

    weights: _Weights

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def transposed(self, g: Tensor, weight: Tensor) -> Tensor:
        return torch.mm(g, weight)


@dataclass
class _Convolution:
    """x [B, in, *size] -> x * W [B, out, *size']; needs the input's shape, not the input."""

    weights: _Weights
    shape: torch.Size
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolve = CONVOLUTIONS[weight.ndim - 3]
        return convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def transposed(self, g: Tensor, weight: Tensor) -> Tensor:
        return torch.ops.aten.convolution_backward(
            g,
            g.new_empty(1).expand(self.shape),  # only its shape is read
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,  # not a transposed convolution
            [0] * len(self.stride),
            self.groups,
            (True, False, False),  # the derivative in the input alone
        )[0]


class _Layer(torch.autograd.Function):
    """y = A x + b, computed with the weight that the host has just cast."""

    @staticmethod
    def forward(ctx, x, operator, weight, bias):
        ctx.operator = operator
        return operator.product(x, weight, bias)

    @staticmethod
    def backward(ctx, g):
        return _Product.apply(g, ctx.operator, True), None, None, None


class _Product(torch.autograd.Function):
    """A x, or A^T x if ``transposed``, with the weight as it is now; each is the other's derivative."""

    @staticmethod
    def forward(ctx, x, operator, transposed):
        comfy.ops.run_every_op()  # a user may interrupt in the middle of a backward pass
        ctx.operator, ctx.transposed = operator, transposed
        with operator.weights(x) as weight:
            if transposed:
                return operator.transposed(x, weight)
            return operator.product(x, weight, None)

    @staticmethod
    def backward(ctx, g):
        return _Product.apply(g, ctx.operator, not ctx.transposed), None, None


def convolution(func, args: tuple, kwargs: dict, weights: _Weights | None = None) -> Tensor:
    """``func(*args, **kwargs)``, one of CONVOLUTIONS, keeping neither its input nor its weight.

    Autograd keeps the input of every convolution, needed or not; this keeps only its shape.
    ``weights`` says where the backward pass finds the weight; None: it stays where it is.
    """
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, args)) | kwargs
    x, weight = given["input"], given["weight"]
    padding = given.get("padding", 0)
    learned = weight.requires_grad and not isinstance(weight, nn.Parameter)
    if not x.requires_grad or learned or x.ndim != weight.ndim or isinstance(padding, str):
        if weights is not None:  # autograd will keep the weight, which does not stay
            given["weight"] = weight.clone()
        return func(**given)

    def per_axis(value: int | Iterable[int]) -> list[int]:
        return [value] * (weight.ndim - 2) if isinstance(value, int) else list(value)

    operator = _Convolution(
        weights or _Held(weight),
        x.shape,
        per_axis(given.get("stride", 1)),
        per_axis(padding),
        per_axis(given.get("dilation", 1)),
        given.get("groups", 1),
    )
    return _Layer.apply(x, operator, weight, given.get("bias"))


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
            weights = _Recast(self._module, self._patcher)
        else:  # a causal convolution at the start of a video uses the last part of its kernel
            weights = _Held(weight.clone())
        return convolution(func, args, kwargs, weights)


def _linear_forward(module, patcher, x, *args, **kwargs):
    if not (torch.is_grad_enabled() and x.requires_grad):
        return type(module).forward_comfy_cast_weights(module, x, *args, **kwargs)
    weights = _Recast(module, patcher)
    rows = x.reshape(-1, x.shape[-1])
    with weights.cast(x) as (weight, bias):
        y = _Layer.apply(rows, _Linear(weights), weight, bias)
    return y.reshape(
        *x.shape[:-1], y.shape[-1]
    )  # here, not in _Layer: its result may be written to


def _convolution_forward(module, patcher, x, *args, **kwargs):
    forward = type(module).forward_comfy_cast_weights
    if not (torch.is_grad_enabled() and x.requires_grad):
        return forward(module, x, *args, **kwargs)
    with _RecastConvolution(module, patcher):
        return forward(module, x, *args, **kwargs)


def hooked_modules(patcher: Any) -> set[nn.Module]:
    """The modules whose weights the patcher's hooks rewrite in place between two conditionings."""
    hook_patches = getattr(patcher, "hook_patches", None) or {}
    keys = {key for patches in hook_patches.values() for key in patches}
    return {comfy.utils.get_attr(patcher.model, key.rpartition(".")[0]) for key in keys}


def _walk(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Every module once; several times faster than ``nn.Module.modules``."""
    seen: set[nn.Module] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module is None or module in seen:
            continue
        seen.add(module)
        waiting.extend(module._modules.values())
        yield module


def _cast_forward(module: nn.Module):
    """The replacement of the module's cast path, or None: not a host layer, or not one we know."""
    forward = getattr(type(module), "forward_comfy_cast_weights", None)
    if forward is None or forward.__module__ != comfy.ops.__name__:
        return None  # another pack's layer casts in its own way; its weights are fresh tensors
    if isinstance(module, nn.Linear) or isinstance(getattr(module, "out_features", None), int):
        return _linear_forward
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return _convolution_forward
    return None


_ABSENT = object()


class _Overrides:
    """Attributes set on instances for a while, and how to take them back."""

    def __init__(self) -> None:
        self._previous: list[tuple[dict, str, Any]] = []

    def set(self, module: nn.Module, name: str, value: Any) -> None:
        # Not setattr: its search for parameters and buffers costs more than the rest of the entry.
        attributes = module.__dict__
        self._previous.append((attributes, name, attributes.get(name, _ABSENT)))
        attributes[name] = value

    def restore(self) -> None:
        while self._previous:
            attributes, name, value = self._previous.pop()
            if value is _ABSENT:
                attributes.pop(name, None)
            else:
                attributes[name] = value


@contextmanager
def recast_in_backward(patcher: Any, modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside the block, host layers whose weights do not stay in place recast them in backward.

    The override sits on the host's own seam, ``forward_comfy_cast_weights`` of the instance, below
    ``forward``: what other packs hang on ``forward`` keeps working. A module that already has an
    override of its own (an enclosing block's, too) is left alone.

    Args:
        patcher: the ModelPatcher whose hooks rewrite weights, or None where there are no hooks.
        modules: the roots; their descendants are included.
    """
    overrides = _Overrides()
    hooked = hooked_modules(patcher)
    try:
        for module in _walk(modules):
            replacement = _cast_forward(module)
            if replacement is None or "forward_comfy_cast_weights" in module.__dict__:
                continue
            quantised = not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
            cast = module.comfy_cast_weights or module.weight_function or module.bias_function
            if not (cast or quantised or module in hooked):
                continue  # resident: its weight is still there in the backward pass
            overrides.set(
                module, "forward_comfy_cast_weights", partial(replacement, module, patcher)
            )
            if quantised:
                overrides.set(module, "comfy_force_cast_weights", True)  # no quantised input
            else:
                overrides.set(module, "comfy_cast_weights", True)  # hooked ones take the seam too
        yield
    finally:
        overrides.restore()
