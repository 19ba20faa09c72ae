"""The tensors that autograd saves for backward: unchanged by later writes, dropped at the end.

Inference code has two habits that would break them. It writes into tensors in place, also into
those that a layer has saved; and it keeps tensors from one step to the next (momentum of guidance,
caches of residuals), each of which holds the graph it came from, and with it all that was saved
for it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ref

import torch
from torch import Tensor

__all__ = ["DROPPED", "Box", "SavedTensors", "address_of"]

DROPPED = (
    "a gradient was asked for outside the evaluation that its graph belongs to: "
    "what was saved for it has been dropped"
)
_OVERWRITTEN = (
    "one of the variables needed for gradient computation has been modified by an inplace "
    "operation that was not seen (a compiled or scripted function of another node)"
)

Hooks = tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]


class Box:
    """One saved tensor, on its way from the forward to the backward pass."""

    __slots__ = ("__weakref__", "content", "dropped", "version")

    def __init__(self, content: Any, version: int | None) -> None:
        self.content, self.version, self.dropped = content, version, False


class SavedTensors:
    """All that autograd saves inside ``watching()``.

    ``before_write`` gives those that share memory with a tensor a copy of their own, so that a
    write into it does not reach the backward pass. At the end of ``watching()`` every box is
    emptied: a graph that somebody keeps is empty then, and a backward through it says so.
    """

    def __init__(self) -> None:
        self._boxes: dict[int, list[ref[Box]]] = {}  # by the address of their memory
        self._outer: Hooks | None = None

    @contextmanager
    def watching(self) -> Iterator["SavedTensors"]:
        """Save through this object; inside an enclosing block, through that block's.

        The hooks that were in force stay in force: they see what is saved, as before.

        Yields:
            The object that saves: the outermost block's.
        """
        self._outer = _hooks_in_force()
        enclosing = getattr(self._outer[0], "__self__", None) if self._outer else None
        if isinstance(enclosing, SavedTensors):  # what is made here may be differentiated there
            yield enclosing
            return
        try:
            with torch.autograd.graph.saved_tensors_hooks(self.pack, self.unpack):
                yield self
        finally:
            self._drop()

    def before_write(self, tensor: Tensor) -> None:
        """Copy what was saved of the memory of ``tensor``, which is about to be written to."""
        copies: dict[tuple, Any] = {}
        for weak in self._boxes.pop(address_of(tensor), ()):
            box = weak()
            if box is None:
                continue
            saved = self._open(box)
            view = (saved.dtype, saved.storage_offset(), saved.size(), saved.stride())
            if view not in copies:  # several operations have saved the same tensor
                copies[view] = self._closed(saved.clone())
            box.content, box.version = copies[view]

    def pack(self, tensor: Tensor) -> Box:
        """Save a tensor, as it is now: a later write into its memory does not reach the box."""
        if tensor.requires_grad:  # an output: it would hold the node that saves it in a cycle
            tensor = tensor.detach()
        box = Box(*self._closed(tensor))
        self._boxes.setdefault(address_of(tensor), []).append(ref(box))
        return box

    def unpack(self, box: Box) -> Tensor:
        """Return what was saved.

        Raises:
            RuntimeError: it has been dropped, or written to by code that was not seen.
        """
        if box.dropped:
            raise RuntimeError(DROPPED)
        return self._open(box)

    def _closed(self, tensor: Tensor) -> tuple[Any, int | None]:
        """Content of a box, and the version of its memory if the box can tell it."""
        if self._outer is not None:
            return self._outer[0](tensor), None
        return tensor, tensor._version

    def _open(self, box: Box) -> Tensor:
        if self._outer is not None:
            return self._outer[1](box.content)
        if box.content._version != box.version:  # autograd's own check, which hooks switch off
            raise RuntimeError(_OVERWRITTEN)
        return box.content

    def _drop(self) -> None:
        for boxes in self._boxes.values():
            for weak in boxes:
                box = weak()
                if box is not None:
                    box.content, box.dropped = None, True
        self._boxes.clear()


def address_of(tensor: Tensor) -> int:
    """Return where the memory of a tensor begins, the same for all its views; 0 if it has none.

    On the meta device, where nothing has an address, a number that stands for it.
    """
    if tensor.layout is not torch.strided:
        return 0
    try:
        storage = tensor.untyped_storage()
        return storage._cdata if tensor.is_meta else storage.data_ptr()
    except (NotImplementedError, RuntimeError):  # a tensor subclass without memory of its own
        return 0


def _hooks_in_force() -> Hooks | None:
    """The innermost saved-tensor hooks of this thread."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return None if top is None else top(False)
