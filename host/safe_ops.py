"""Torch functions as a derivative needs them, in a host that was written for inference.

The host runs everything in inference mode, so weights, conditionings and caches are inference
tensors, which autograd refuses to save; its blocks, and other packs' patches, write into tensors
that autograd has saved; its fused kernels have no derivative. ``SafeOps`` sees every call of torch
and corrects these three.
"""

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from types import MethodWrapperType
from typing import Any
from weakref import ref

import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from .frozen_layers import CONVOLUTIONS, Held, convolution
from .saved_tensors import SavedTensors, address_of

__all__ = ["SafeOps", "ordinary_alias"]

# They save their weight, which may lie in a transfer buffer that the next layer reuses.
_SAVING = (
    *(F.layer_norm, F.group_norm, F.rms_norm, F.batch_norm, F.instance_norm),
    *(torch.layer_norm, torch.group_norm, torch.rms_norm, torch.batch_norm, torch.instance_norm),
    *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
)

# Fused kernels of the host without a derivative; the eager back end has each as a torch formula,
# in the module named here if this version of the kernel package has it.
_KERNELS = {
    "adaln": ("adaln", "rms_adaln"),
    "rope": (
        *("apply_rope", "apply_rope1", "apply_rope_split_half", "apply_rope_split_half1"),
        *("rms_rope", "rms_rope1", "rms_rope_split_half", "rms_rope_split_half1"),
    ),
    "conv3d": ("fp16_conv3d",),
    "group_norm_pad3d": ("group_norm_silu_pad3d", "group_norm_stats3d"),
    "na": ("na3d",),
}


@cache
def _kernel_formulas() -> dict[Callable, Callable]:
    """Kernel -> formula, of those that write into arguments too; empty without the package."""
    formulas = {}
    for module_name, names in _KERNELS.items():
        try:
            module = import_module(f"comfy_kitchen.backends.eager.{module_name}")
        except ImportError:
            continue
        for name in names:
            formula = getattr(module, name, None)
            for variant in (name, f"{name}_", f"{name}_out"):
                kernel = getattr(torch.ops.comfy_kitchen, variant, None)
                if formula is None or kernel is None:
                    continue
                written = variant != name
                formulas[kernel] = _into_arguments(kernel, formula) if written else formula
                formulas[kernel.default] = formulas[kernel]
    return formulas


def _into_arguments(kernel: Callable, formula: Callable) -> Callable:
    """``formula``, its results written where ``kernel`` writes them: to inputs or to ``out``."""
    arguments = kernel.default._schema.arguments
    written = [argument.name for argument in arguments if argument.is_write]

    def write(*args, **kwargs) -> None:
        given = dict(zip((argument.name for argument in arguments), args, strict=False)) | kwargs
        destinations = [given[name] for name in written]
        given.pop("out", None)
        results = formula(**given)
        results = results if isinstance(results, tuple) else (results,)
        for destination, result in zip(destinations, results, strict=True):
            destination.copy_(result)

    return write


def ordinary_alias(tensor: Tensor) -> Tensor:
    """Make an ordinary tensor on the memory of an inference tensor; autograd may save it."""
    if tensor.layout is not torch.strided or tensor.is_conj() or tensor.is_neg():
        return tensor.clone()
    alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return alias.set_(
        tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride()
    )


def _interruptible(grad: Tensor) -> None:
    comfy.ops.run_every_op()


# They return several views at once, into none of which autograd lets anybody write.
_SPLITTING = (
    *(torch.chunk, torch.split, torch.tensor_split, torch.unbind),
    *(Tensor.chunk, Tensor.split, Tensor.split_with_sizes, Tensor.tensor_split, Tensor.unbind),
    *(Tensor.__iter__, torch.hsplit, torch.vsplit, torch.dsplit),
)

_DATA = Tensor.data

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
        return tuple(k for k, argument in enumerate(schema.arguments) if argument.is_write)
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return (0,) if in_place or name == "__setitem__" or name in _AUGMENTED else ()


class SafeOps(TorchFunctionMode):
    """Makes inference code differentiable while it runs; parameters count as constants.

    Args:
        saved: the tensors that autograd saves: before a write into its memory it gets a copy of
            its own.
        second_order: whether to compute attention by the formula that can be differentiated twice.
    """

    def __init__(self, saved: SavedTensors, *, second_order: bool) -> None:
        super().__init__()
        self._saved = saved
        # Tensor (by its id) -> what takes its place since it was written to.
        self._overlays: dict[int, tuple[Tensor, Tensor]] = {}
        # Views that came with others from one call, by the address of their memory.
        self._parts: dict[int, list[ref[Tensor]]] = {}
        self._handlers: dict[Callable, Callable] = dict.fromkeys(_SAVING, self._copying)
        self._handlers |= dict.fromkeys(CONVOLUTIONS, self._convolution)
        self._handlers |= dict.fromkeys(_kernel_formulas(), self._formula)
        self._handlers |= dict.fromkeys(_SPLITTING, self._splitting)
        self._handlers[torch.autograd.grad] = self._gradient
        if second_order:
            self._handlers[F.scaled_dot_product_attention] = self._attention

    def __torch_function__(self, func, types, args=(), kwargs=None):
        # Called for every access to .shape too (a method wrapper): this line is the hot one.
        if type(func) is MethodWrapperType:
            if func.__self__ is _DATA and len(args) == 1 and args[0].grad_fn is not None:
                return args[0]  # a write into ``x.data`` is one into x, of which autograd must know
            return func(*args, **kwargs) if kwargs else func(*args)
        written = _written(func)
        if kwargs:
            if written or kwargs.get("out") is not None or kwargs.get("inplace"):
                return self._write(func, args, kwargs, written)
        elif written:
            return self._write(func, args, {}, written)
        if not torch.is_grad_enabled():
            return func(*args, **kwargs) if kwargs else func(*args)
        handler = self._handlers.get(func)
        if handler is not None:
            return handler(func, args, kwargs or {})
        fixed = map(self._constant, args)
        if not kwargs:
            return func(*fixed)
        return func(*fixed, **{name: self._constant(value) for name, value in kwargs.items()})

    def _write(self, func: Callable, args: tuple, kwargs: dict, written: tuple[int, ...]) -> Any:
        """A call that writes: at the positions ``written``, into ``out`` or, asked to, in place."""
        if kwargs.get("inplace"):  # activations and dropout
            written = (0,)
        if torch.is_grad_enabled():
            fixed = [self._constant(value) for value in args]
            named = {name: self._constant(value) for name, value in kwargs.items()}
        else:
            fixed, named = list(args), dict(kwargs)
        _set_apart(fixed, named, written)
        for position in written[: len(args)]:
            fixed[position] = self._destination(args[position])
        handler = self._handlers.get(func)
        if handler is not None and torch.is_grad_enabled():
            result = handler(func, tuple(fixed), named)
        elif kwargs.get("out") is None:
            result = func(*fixed, **named)
        else:
            named["out"] = self._destination(kwargs["out"])
            result = self._out(func, fixed, named)
        if written and args and result is fixed[written[0]]:
            return args[written[0]]  # as the caller knows it
        return result

    def _destination(self, value: Any) -> Any:
        """``value``, ready to be written into; a list of tensors likewise."""
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._destination, value))
        if not isinstance(value, Tensor):
            return value
        self._saved.before_write(value)
        if torch.is_inference_mode_enabled():  # as the host's hooks do, when they rewrite weights
            return value
        self._separate(self._parts.pop(address_of(value), ()))
        if type(value) is Tensor and value.is_inference():
            # Torch writes into an inference tensor in inference mode only. An ordinary tensor on
            # the same memory takes the write, and knows from then on where its value is from.
            self._overlays.setdefault(id(value), (value, ordinary_alias(value)))
        return self._current(value)

    def _separate(self, parts: Iterable[ref[Tensor]]) -> None:
        """Views that each stand for themselves, in the place of those that one call returned."""
        for weak in parts:
            part = weak()
            if part is not None and id(part) not in self._overlays:
                view = part._base.as_strided(part.size(), part.stride(), part.storage_offset())
                self._overlays[id(part)] = part, view

    def ordinary(self, tensor: Tensor) -> Tensor:
        """The tensor as operations take it: its value of now, in one that autograd may save."""
        with torch._C.DisableTorchFunction():  # as in the calls that this mode handles
            return self._constant(tensor)

    def _current(self, value: Tensor) -> Tensor:
        overlay = self._overlays.get(id(value))
        return value if overlay is None else overlay[1]

    def _constant(self, value: Any) -> Any:
        """``value`` with inference tensors and parameters inside replaced by ordinary constants."""
        kind = type(value)
        if kind is Tensor:
            if self._overlays:  # no call where there is nothing to find: every argument comes here
                value = self._current(value)
            return ordinary_alias(value) if value.is_inference() else value
        if kind is nn.Parameter:
            return ordinary_alias(value) if value.is_inference() else value.detach()
        if kind is list or kind is tuple:
            return kind(map(self._constant, value))
        return value

    def _gradient(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        def current(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(map(current, value))
            return self._current(value)

        return func(*map(current, args), **{k: current(value) for k, value in kwargs.items()})

    def _splitting(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        args = tuple(map(self._constant, args))
        if func is Tensor.__iter__:
            return iter(self._splitting(Tensor.unbind, args, {}))
        parts = func(*args, **{name: self._constant(value) for name, value in kwargs.items()})
        for part in parts:
            if part._base is not None:
                self._parts.setdefault(address_of(part), []).append(ref(part))
        return parts

    def _copying(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        def copy(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            value = self._current(value)
            if isinstance(value, nn.Parameter) or not value.requires_grad:
                return value.detach().clone()
            value.register_hook(_interruptible)  # every model has norms: backward can be stopped
            return value

        return func(*map(copy, args), **{name: copy(value) for name, value in kwargs.items()})

    def _convolution(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        resident = isinstance(weight, nn.Parameter) or weight.is_inference()
        args = tuple(map(self._constant, args))
        kwargs = {name: self._constant(value) for name, value in kwargs.items()}
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        return convolution(func, args, kwargs, Held(weight) if resident else None)

    def _formula(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        with self:  # the formula's own operations are to be mended as well
            return _kernel_formulas()[func](*args, **kwargs)

    def _attention(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        args = tuple(map(self._constant, args))
        with sdpa_kernel(SDPBackend.MATH):  # the host may have chosen another one around this call
            return func(*args, **{k: self._constant(v) for k, v in kwargs.items()})

    def _out(self, func: Callable, args: list, kwargs: dict) -> Any:
        """``func(..., out=tensor)``, which autograd refuses, as an operation and a write."""
        out = kwargs.pop("out")
        if not isinstance(out, Tensor) or not torch.is_grad_enabled():
            return func(*args, out=out, **kwargs)
        # Chunked sub-quadratic attention: exp(x, out=x); exp_ is the same and needs no memory.
        in_place = getattr(Tensor, f"{func.__name__}_", None)
        if in_place is not None and args[0] is out:
            return in_place(*args, **kwargs)
        result = func(*args, **kwargs)
        self._saved.before_write(out)  # which ``func`` may have saved just now
        return out.copy_(result) if result.shape == out.shape else func(*args, out=out, **kwargs)


def _set_apart(args: list, kwargs: dict, written: tuple[int, ...]) -> None:
    """Copy arguments that share memory with what is written into: autograd keeps them as they are.

    Args:
        args, kwargs: the arguments of a call that writes; they are changed in place.
        written: positions of the arguments that it writes into, beside ``out``.
    """
    out = kwargs.get("out")
    destinations = [*(args[k] for k in written if k < len(args)), out]
    memory = {address_of(t) for each in destinations for t in _tensors(each)} - {0}

    def apart(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.clone() if address_of(value) in memory else value
        return type(value)(map(apart, value)) if type(value) in (list, tuple) else value

    for k, value in enumerate(args):
        if k not in written and not (k == 0 and value is out):  # exp(x, out=x) needs no copy
            args[k] = apart(value)
    for name in kwargs.keys() - {"out"}:
        kwargs[name] = apart(kwargs[name])


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        return (value,)
    if isinstance(value, list | tuple):
        return [each for each in value if isinstance(each, Tensor)]
    return ()
