"""Torch functions as a derivative needs them, in a host that was written for inference.

The host runs everything in inference mode, so weights, conditionings and caches are inference
tensors, which autograd refuses to save; its blocks, and other packs' patches, write into tensors
that autograd has saved; its fused kernels have no derivative. ``SafeOps`` sees every call of torch
and mends these three.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from types import MethodWrapperType
from typing import Any

import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from .constant_products import CONVOLUTIONS, convolution
from .saved_tensors import SavedTensors

__all__ = ["SafeOps", "ordinary_alias"]

# They save their weight, which may lie in a transfer buffer that the next layer reuses.
_SAVING = (
    *(F.layer_norm, F.group_norm, F.rms_norm, F.batch_norm, F.instance_norm),
    *(torch.layer_norm, torch.group_norm, torch.rms_norm, torch.batch_norm, torch.instance_norm),
    *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
)

# Fused kernels of the host without a derivative; the eager back end has each as a torch formula.
_KERNELS = (
    *("adaln", "rms_adaln"),
    *("apply_rope", "apply_rope1", "apply_rope_split_half", "apply_rope_split_half1"),
    *("rms_rope", "rms_rope1", "rms_rope_split_half", "rms_rope_split_half1"),
)


@cache
def _kernel_formulas() -> dict[Callable, Callable]:
    """Kernel -> formula; empty on hosts without the kernel package."""
    try:
        from comfy_kitchen.backends.eager import adaln, rope
    except ImportError:
        return {}
    formulas = {}
    for name in _KERNELS:
        formula = getattr(rope, name, None) or getattr(adaln, name, None)
        kernel = getattr(torch.ops.comfy_kitchen, name, None)
        if formula is not None and kernel is not None:
            formulas[kernel] = formulas[kernel.default] = formula
    return formulas


def ordinary_alias(tensor: Tensor) -> Tensor:
    """An ordinary tensor on the memory of an inference tensor; autograd may save it."""
    if tensor.layout is not torch.strided or tensor.is_conj() or tensor.is_neg():
        return tensor.clone()
    alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return alias.set_(
        tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride()
    )


def _interruptible(grad: Tensor) -> None:
    comfy.ops.run_every_op()


_AUGMENTED = {
    *("__iadd__", "__isub__", "__imul__", "__idiv__", "__itruediv__", "__ifloordiv__"),
    *("__imod__", "__ipow__", "__imatmul__", "__iand__", "__ior__", "__ixor__"),
    *("__ilshift__", "__irshift__"),
}


@cache
def _written(func: Callable) -> tuple[int, ...]:
    """Positions of the arguments that ``func`` writes into, whatever else it is given."""
    schema = getattr(getattr(func, "default", func), "_schema", None)  # of a registered operator
    if schema is not None:
        written = (a.alias_info is not None and a.alias_info.is_write for a in schema.arguments)
        return tuple(k for k, is_written in enumerate(written) if is_written)
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return (0,) if in_place or name == "__setitem__" or name in _AUGMENTED else ()


def _destinations(func: Callable, args: tuple, kwargs: dict) -> Iterator[Any]:
    """The arguments, tensors or lists of them, that this call writes into."""
    for position in _written(func):
        if position < len(args):
            yield args[position]
    if kwargs.get("out") is not None:
        yield kwargs["out"]
    if kwargs.get("inplace") and args:  # activations and dropout
        yield args[0]


class SafeOps(TorchFunctionMode):
    """Makes inference code differentiable while it runs; parameters count as constants.

    Args:
        saved: what autograd saves: before a write into its memory it gets a copy of its own.
        second_order: compute attention by the formula that can be differentiated twice.
        copy_constants: copy inference tensors instead of aliasing them; needed where the host
            rewrites weights in place before the backward pass has read them.
    """

    def __init__(self, saved: SavedTensors, *, second_order: bool, copy_constants: bool) -> None:
        super().__init__()
        self._saved = saved
        self._ordinary = torch.clone if copy_constants else ordinary_alias
        self._handlers: dict[Callable, Callable] = dict.fromkeys(_SAVING, self._copying)
        self._handlers |= dict.fromkeys(CONVOLUTIONS, self._convolution)
        self._handlers |= dict.fromkeys(_kernel_formulas(), self._formula)
        self._handlers[torch.autograd.grad] = self._unchanged
        if second_order:
            self._handlers[F.scaled_dot_product_attention] = self._attention

    def __torch_function__(self, func, types, args=(), kwargs=None):
        # Called for every access to .shape too (a method wrapper): this line is the hot one.
        if type(func) is MethodWrapperType:
            return func(*args, **kwargs) if kwargs else func(*args)
        kwargs = kwargs or {}
        if kwargs or _written(func):
            self._before_write(_destinations(func, args, kwargs))
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        handler = self._handlers.get(func)
        if handler is not None:
            return handler(func, args, kwargs)
        if kwargs.get("out") is not None:
            return self._out(func, args, kwargs)
        fixed = [self._constant(value) for value in args]
        for position in _written(func)[: len(args)]:  # a write into a copy would be lost silently
            fixed[position] = args[position]
        if not kwargs:
            return func(*fixed)
        return func(*fixed, **{name: self._constant(value) for name, value in kwargs.items()})

    def _before_write(self, destinations: Iterable[Any]) -> None:
        for destination in destinations:
            for tensor in destination if isinstance(destination, (list, tuple)) else [destination]:
                if isinstance(tensor, Tensor):
                    self._saved.before_write(tensor)

    def _constant(self, value: Any) -> Any:
        """``value`` with inference tensors and parameters inside replaced by ordinary constants."""
        kind = type(value)
        if kind is Tensor:
            return self._ordinary(value) if value.is_inference() else value
        if kind is nn.Parameter:
            return self._ordinary(value) if value.is_inference() else value.detach()
        if kind is list or kind is tuple:
            return kind(map(self._constant, value))
        return value

    def _unchanged(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        return func(*args, **kwargs)

    def _copying(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        def copy(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if isinstance(value, nn.Parameter) or not value.requires_grad:
                return value.detach().clone()
            value.register_hook(_interruptible)  # every model has norms: backward can be stopped
            return value

        return func(*map(copy, args), **{name: copy(value) for name, value in kwargs.items()})

    def _convolution(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        args = tuple(map(self._constant, args))
        return convolution(func, args, {k: self._constant(v) for k, v in kwargs.items()})

    def _formula(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        with self:  # the formula's own operations are to be mended as well
            return _kernel_formulas()[func](*args, **kwargs)

    def _attention(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        args = tuple(map(self._constant, args))
        with sdpa_kernel(SDPBackend.MATH):  # the host may have chosen another one around this call
            return func(*args, **{k: self._constant(v) for k, v in kwargs.items()})

    def _out(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """``func(..., out=tensor)``, which autograd refuses, as an operation and a write."""
        kwargs = {name: self._constant(value) for name, value in kwargs.items()}
        out = kwargs.pop("out")
        args = tuple(map(self._constant, args))
        if not isinstance(out, Tensor):
            return func(*args, out=out, **kwargs)
        # Chunked sub-quadratic attention: exp(x, out=x); exp_ is the same and needs no memory.
        in_place = getattr(Tensor, f"{func.__name__}_", None)
        if in_place is not None and args[0] is out:
            return in_place(*args, **kwargs)
        result = func(*args, **kwargs)
        return out.copy_(result) if result.shape == out.shape else func(*args, out=out, **kwargs)
