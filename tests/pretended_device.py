"""A device that pretends: it computes on the CPU and records where a real one would be waited for.

Tensors on it say that they are on torch's ``meta`` device. A real device is waited for by what asks
it for a value (``.item()``, ``.tolist()``, ``bool()``, a copy to the CPU, a mask as an index), and
by what hands it one from ordinary memory: torch's copies wait in both directions.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

__all__ = ["on_device", "waits"]

DEVICE, CPU = torch.device("meta"), torch.device("cpu")
GUIDANCE = Path(__file__).resolve().parents[1] / "guidance"

ops = torch.ops.aten
# What returns a value, or a shape that depends on values.
ASKS = {
    ops._local_scalar_dense,
    ops._unique2,
    ops.equal,
    ops.is_nonzero,
    ops.masked_select,
    ops.nonzero,
    ops.unique_dim,
}
INDEXED = {ops._index_put_impl_, ops.index, ops.index_put, ops.index_put_}

_recorded: list[list[str]] = []


class _OnDevice(Tensor):
    """A tensor of the device; ``kept`` has its values, on the CPU."""

    kept: Tensor

    @staticmethod
    def __new__(cls, kept: Tensor) -> "_OnDevice":
        made = Tensor._make_wrapper_subclass(
            cls,
            kept.shape,
            strides=kept.stride(),
            storage_offset=kept.storage_offset(),
            dtype=kept.dtype,
            device=DEVICE,
        )
        made.kept = kept
        return made

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in (Tensor.tolist, Tensor.numpy):  # torch has them for no subclass
            _record()
            return getattr(args[0].detach().kept, func.__name__)()
        if func is Tensor.new_tensor:
            return _handed(torch.tensor(args[1], dtype=args[0].dtype))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Sees numbers that are handed to the device, which torch copies where no dispatch is seen."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and device and torch.device(device) == DEVICE:
            return _handed(func(*args, **{**kwargs, "device": CPU}))
        return func(*args, **kwargs)


def _handed(numbers: Tensor) -> Tensor:
    _record()
    return _OnDevice(numbers)


class _Creation(TorchDispatchMode):
    """Sees what is made on the device although no input is there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args: tuple, kwargs: dict) -> Any:
    from_device = any(isinstance(value, _OnDevice) for value in tree_iter((args, kwargs)))
    to_device = from_device
    if kwargs.get("device") is not None:
        to_device = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": CPU}
    if not (from_device or to_device):
        return func(*args, **kwargs)
    if _is_waited_for(func.overloadpacket, args, from_device, to_device):
        _record()
    result = func(*tree_map(_values, args), **tree_map(_values, kwargs))
    if func._schema.is_mutable:  # in place: the first argument is the result
        return args[0]
    return tree_map(_kept, result) if to_device else result


def _is_waited_for(operation, args: tuple, from_device: bool, to_device: bool) -> bool:
    if operation in ASKS:
        return from_device
    if operation is ops._to_copy:
        return from_device != to_device
    if operation is ops.copy_:
        return isinstance(args[0], _OnDevice) != isinstance(args[1], _OnDevice)
    if operation in INDEXED:
        indices = [index for index in args[1] if index is not None]
        return any(_is_mask(index) or not isinstance(index, _OnDevice) for index in indices)
    return False


def _is_mask(index: Tensor) -> bool:
    return index.dtype in (torch.bool, torch.uint8)


def _values(value: Any) -> Any:
    return value.kept if isinstance(value, _OnDevice) else value


def _kept(value: Any) -> Any:
    return _OnDevice(value) if isinstance(value, Tensor) else value


def _record() -> None:
    """Remember the line of guidance that is responsible."""
    frames = [
        f"{Path(frame.filename).relative_to(GUIDANCE).as_posix()}:{frame.lineno}"
        for frame in traceback.extract_stack()
        if Path(frame.filename).is_relative_to(GUIDANCE)
    ]
    if _recorded:
        _recorded[-1].append(frames[-1] if frames else "")


def on_device(tensor: Tensor) -> Tensor:
    """Return a tensor of the device with the same values."""
    return _OnDevice(tensor.detach().clone())


@contextmanager
def waits() -> Iterator[list[str]]:
    """Record the places in guidance, ``file:line``, at which the device is waited for."""
    _recorded.append([])
    try:
        with _Literals(), _Creation():
            yield _recorded[-1]
    finally:
        _recorded.pop()
