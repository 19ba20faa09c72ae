"""The state that other packs keep between two evaluations of the model.

A pack may keep a running average or a counter in the model options, in a variable of its patch or
in an object. The host evaluates the model once a step; a guided step evaluates it several times.
For the pack it must remain one: its state advances by the first evaluation, and the others see it
as it was before and leave no trace.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from comfy.model_patcher import create_model_options_clone

__all__ = ["NeighborState", "lent"]

_ABSENT = object()
# Objects of these packages are no neighbors: what they keep belongs to the run itself.
_HOST = ("builtins", "collections", "comfy", "functools", "numpy", "torch", "typing")
MOST_OBJECTS = 10_000  # that are looked through
_OURS = __name__.removesuffix(".host.neighbor_state")


class NeighborState:
    """The state of the neighbors at the moment of its making.

    Bindings count: keys of the options, variables and defaults of patches, attributes of objects,
    and the entries of dicts in any of them. A tensor that is changed in place is not copied, nor a
    list, which mostly records what has been. The global random streams belong to it: a patch
    that draws from them draws the same at every point of a step.
    """

    def __init__(self, model_options: dict[str, Any], device: torch.device):
        """
        Args:
            model_options: the model options of the run.
            device: the device on which the model runs.
        """
        self._options = create_model_options_clone(model_options)
        self._streams = [torch] + [getattr(torch, device.type)] * (device.type != "cpu")
        self._drawn = [stream.get_rng_state() for stream in self._streams]
        self._kept = [(holder, holder.read()) for holder in _holders(model_options)]

    @contextmanager
    def again(self) -> Iterator[dict[str, Any]]:
        """Restore the state inside the block and yield the options; afterwards all is as before."""
        now = [(holder, holder.read()) for holder, _ in self._kept]
        drawn = [stream.get_rng_state() for stream in self._streams]
        try:
            for holder, values in self._kept:
                holder.write(values)
            self._draw_from(self._drawn)
            yield create_model_options_clone(self._options)
        finally:
            self._draw_from(drawn)
            for holder, values in now:
                holder.write(values)

    def restore(self) -> None:
        """Make the neighbors themselves as they were."""
        for holder, values in self._kept:
            holder.write(values)

    def put_back(self, model_options: dict[str, Any]) -> None:
        """Make the neighbors, and the options that they write into, as they were."""
        self.restore()
        self._draw_from(self._drawn)
        before = create_model_options_clone(self._options)
        if "transformer_options" in before:
            inner = model_options["transformer_options"]
            _replace(inner, before["transformer_options"])
            before["transformer_options"] = inner
        _replace(model_options, before)

    def _draw_from(self, states: list[torch.Tensor]) -> None:
        for stream, state in zip(self._streams, states, strict=True):
            stream.set_rng_state(state)


@contextmanager
def lent(options: dict[str, Any], changed: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """``options`` themselves with the entries of ``changed`` for the time of the block.

    Args:
        options: the model options of the host.
        changed: a changed copy of them, down to ``transformer_options``.
    """
    inner = options.setdefault("transformer_options", {})
    new_inner = changed["transformer_options"]
    undo = []
    try:
        for entries, new in ((inner, new_inner), (options, changed)):
            for key in entries.keys() | new.keys():
                before, after = entries.get(key, _ABSENT), new.get(key, _ABSENT)
                if after is before or after is new_inner:
                    continue
                undo.append((entries, key, before))
                _set(entries, key, after)
        yield options
    finally:
        for entries, key, before in undo:
            _set(entries, key, before)
        replaced = options.get("transformer_options")
        if isinstance(replaced, dict) and replaced is not inner:  # by a neighbor's copy of them
            for entries, key, before in undo:
                if entries is inner and replaced.get(key, _ABSENT) is new_inner.get(key, _ABSENT):
                    _set(replaced, key, before)


def _replace(entries: dict, values: dict) -> None:
    entries.clear()
    entries.update(values)


def _set(entries: dict, key: str, value: Any) -> None:
    if value is _ABSENT:
        entries.pop(key, None)
    else:
        entries[key] = value


class _Cell:
    """A variable that a function shares with the one around it."""

    def __init__(self, cell: CellType):
        self._cell = cell

    def read(self) -> Any:
        return _contents(self._cell)

    def write(self, value: Any) -> None:
        if value is not _ABSENT:
            self._cell.cell_contents = value


class _Attributes:
    """The attributes of an object."""

    def __init__(self, owner: object):
        self._attributes = owner.__dict__

    def read(self) -> dict[str, Any]:
        return dict(self._attributes)

    def write(self, values: dict[str, Any]) -> None:
        for name in self._attributes.keys() - values.keys():
            del self._attributes[name]
        self._attributes.update(values)


class _Entries:
    """The entries of a dict."""

    def __init__(self, entries: dict):
        self._entries = entries

    def read(self) -> dict:
        return dict(self._entries)

    def write(self, values: dict) -> None:
        _replace(self._entries, values)


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return _ABSENT


def _holders(model_options: dict[str, Any]) -> list[_Cell | _Attributes | _Entries]:
    """Where the functions and objects in the options keep something."""
    holders: list[_Cell | _Attributes | _Entries] = []
    seen: set[int] = set()
    # Values, and whether they belong to the options, which are copied as a whole.
    waiting: list[tuple[Any, bool]] = [(model_options, True)]
    while waiting and len(seen) < MOST_OBJECTS:
        value, in_options = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        inner: Iterable = ()
        if isinstance(value, dict):
            if in_options:
                waiting += [(each, True) for each in value.values()]
                continue
            holders.append(_Entries(value))
        elif isinstance(value, list | tuple):
            waiting += [(each, in_options) for each in value]
        elif isinstance(value, FunctionType):
            holders += [_Cell(cell) for cell in value.__closure__ or ()]
            holders.append(_Attributes(value))
            inner = [_contents(cell) for cell in value.__closure__ or ()]
            inner += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        elif isinstance(value, MethodType):
            inner = (value.__func__, value.__self__)
        elif isinstance(value, partial):
            inner = (value.func, *value.args, *value.keywords.values())
        elif _is_neighbor(value):
            holders.append(_Attributes(value))
            inner = [each for each in value.__dict__.values() if isinstance(each, dict)]
        waiting += [(each, False) for each in inner if not isinstance(each, list | tuple)]
    return holders


def _is_neighbor(value: Any) -> bool:
    """Whether an object of another pack, or of the host's own nodes, may keep a state in it."""
    module = type(value).__module__
    if module.partition(".")[0] in _HOST or module.startswith(f"{_OURS}."):
        return False
    left_alone = isinstance(value, type | ModuleType | torch.nn.Module)
    return hasattr(value, "__dict__") and not left_alone
