"""Blocks that save only what they are given: the backward pass runs each of them once more.

What autograd saves grows with the number of layers; of a network of equal blocks it is then what
one block saves, and the inputs of all. The price is one more forward.

Inside a block autograd records its graph as always, but keeps in the place of every tensor a note
that it has been there. The first note that the backward pass asks for makes the block run again,
from copies of what it was given, and each tensor that is saved now takes the place of its note.
Nothing is cut: outputs of any kind, gradients of tensors that reach the block by another way than
its arguments, and second derivatives are those of the block as it stands.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet, ref

import torch
from torch import Tensor, nn

from .blocks import repeated_blocks
from .overrides import Overrides
from .safe_ops import SafeOps
from .saved_tensors import DROPPED, Box, SavedTensors
from .weight_hooks import use_hooks

__all__ = ["Call", "checkpointed", "plainly"]

Call = Callable[..., Any]

_CHANGED = (
    "a block of the model computes something else in the backward pass than in the forward pass "
    "(a node that counts its calls is the usual reason): choose 'fast' for 'memory'"
)


@contextmanager
def checkpointed(
    patcher: Any, modules: Iterable[nn.Module], saved: SavedTensors, operations: SafeOps
) -> Iterator[Call]:
    """Let the blocks below ``modules`` save only their inputs, inside the block.

    It sits on ``forward`` of the instance, around what other packs have hung there before. What
    they hang there later is around it.

    Yields:
        A function that calls another one as a block: ``call(function, *args, **kwargs)``.

    Args:
        patcher: the ModelPatcher whose hooks rewrite weights, or None where there are no hooks.
        modules: the roots; their blocks are found by ``repeated_blocks``.
        saved: what saves tensors here; the backward pass has to be inside the block, too.
        operations: the mode in force, in which a block runs again.
    """
    run = _Run(patcher, saved, operations)
    overrides = Overrides()
    try:
        for block in repeated_blocks(list(modules)):
            overrides.set(block, "forward", partial(run.call, block.forward))
        yield run.call
    finally:
        overrides.restore()
        run.drop()


def plainly(function: Call, *args: Any, **kwargs: Any) -> Any:
    """Call ``function``, which saves what it saves."""
    return function(*args, **kwargs)


class _Run:
    """All calls of blocks between entry and exit."""

    def __init__(self, patcher: Any, saved: SavedTensors, operations: SafeOps) -> None:
        self.patcher, self.saved, self.operations = patcher, saved, operations
        self._calls: WeakSet[_Call] = WeakSet()
        self._inside = False
        self._filled: ref[_Call] | None = None

    def call(self, function: Callable, *args, **kwargs) -> Any:
        """Call a block's forward."""
        if self._inside or not torch.is_grad_enabled():
            return function(*args, **kwargs)
        call = _Call(self, function, args, kwargs)
        self._calls.add(call)
        with self.inside(), torch.autograd.graph.saved_tensors_hooks(call.note, call.tensor):
            return function(*args, **kwargs)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Blocks that a block calls belong to it."""
        before, self._inside = self._inside, True
        try:
            yield
        finally:
            self._inside = before

    def make_room(self, call: "_Call") -> None:
        """Empty the notes of the call that ran again last: the backward pass has moved on."""
        last = self._filled and self._filled()
        if last is not None:
            last.empty()
        self._filled = ref(call)

    def drop(self) -> None:
        for call in self._calls:
            call.drop()


class _Note:
    """In the place of one saved tensor; full between a second run of the block and its use."""

    __slots__ = ("__weakref__", "box", "dtype", "shape")

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.dtype = tensor.shape, tensor.dtype
        self.box: Box | None = None


@dataclass(frozen=True)
class _Given:
    """A tensor that a block was given."""

    box: Box
    requires_grad: bool


class _Call:
    """One call of one block: what it was given, and a note for each tensor that it would save."""

    def __init__(self, run: _Run, function: Callable, args: tuple, kwargs: dict) -> None:
        self._run, self._function = run, function
        self._hooks = getattr(run.patcher, "current_hooks", None)
        self._notes: list[ref[_Note]] = []
        # Dicts and lists, too: the host goes on to write into its options.
        self._given = _mapped((args, kwargs), Tensor, self._kept, {})
        given = (*args, *kwargs.values())
        devices = {each.device.type for each in given if isinstance(each, Tensor)}
        self._streams = [torch, *(getattr(torch, kind, None) for kind in devices - {"cpu"})]
        self._streams = [each for each in self._streams if hasattr(each, "get_rng_state")]
        self._drawn = [stream.get_rng_state() for stream in self._streams]

    def note(self, tensor: Tensor) -> Any:
        note = _Note(tensor)
        self._notes.append(ref(note))
        return self, note

    def tensor(self, noted: tuple["_Call", _Note]) -> Tensor:
        """The tensor of a note, made again if need be; the note is empty afterwards."""
        note = noted[1]
        if note.box is None:
            self._run.make_room(self)
            self._again()
        box, note.box = note.box, None
        if box is None:
            raise RuntimeError(_CHANGED)
        return self._run.saved.unpack(box)

    def empty(self) -> None:
        for weak in self._notes:
            note = weak()
            if note is not None:
                note.box = None

    def drop(self) -> None:
        """Forget everything: what a block was given may lead to other packs' objects, which may
        keep tensors of the same graph."""
        self._given = self._function = None
        self.empty()

    def _again(self) -> None:
        """Run the block once more and fill the notes."""
        if self._given is None:
            raise RuntimeError(DROPPED)
        use_hooks(self._run.patcher, self._hooks)
        waiting = iter(self._notes)

        def fill(tensor: Tensor) -> None:
            weak = next(waiting, None)
            if weak is None:
                raise RuntimeError(_CHANGED)
            note = weak()
            if note is None:  # its node is gone
                return
            if (note.shape, note.dtype) != (tensor.shape, tensor.dtype):
                raise RuntimeError(_CHANGED)
            note.box = self._run.saved.pack(tensor)

        hooks = torch.autograd.graph.saved_tensors_hooks(fill, fill)
        # A backward pass is outside the mode, and without gradients.
        with self._run.operations, torch.enable_grad(), self._run.inside(), self._drawing(), hooks:
            args, kwargs = _mapped(self._given, _Given, self._copied, {})
            self._function(*args, **kwargs)

    def _kept(self, tensor: Tensor) -> _Given:
        tensor = self._run.operations.ordinary(tensor)
        return _Given(self._run.saved.pack(tensor), tensor.requires_grad)

    def _copied(self, given: _Given) -> Tensor:
        """A copy: blocks may write into what they are given."""
        tensor = self._run.saved.unpack(given.box).detach()
        # Cloned behind the leaf, into which nothing may be written.
        return tensor.requires_grad_(given.requires_grad).clone()

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Random numbers are those of the first time, and leave no trace."""
        now = [stream.get_rng_state() for stream in self._streams]
        try:
            for stream, state in zip(self._streams, self._drawn, strict=True):
                stream.set_rng_state(state)
            yield
        finally:
            for stream, state in zip(self._streams, now, strict=True):
                stream.set_rng_state(state)


def _mapped(value: Any, kind: type, change: Callable, memo: dict[int, Any]) -> Any:
    """A copy of nested dicts, lists and tuples with what is of ``kind`` changed.

    ``memo`` holds the copies by the identity of their originals: what was one stays one.
    """
    if id(value) in memo:
        return memo[id(value)]
    copy: Any
    if type(value) is kind:
        copy = memo[id(value)] = change(value)
    elif type(value) is dict:
        copy = memo[id(value)] = {}
        copy.update((name, _mapped(each, kind, change, memo)) for name, each in value.items())
    elif type(value) is list:
        copy = memo[id(value)] = []
        copy.extend(_mapped(each, kind, change, memo) for each in value)
    elif type(value) is tuple:
        copy = memo[id(value)] = tuple(_mapped(each, kind, change, memo) for each in value)
    else:
        copy = value
    return copy
