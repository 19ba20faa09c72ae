"""Memory that autograd holds for a backward pass, counted while other code runs."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from zmagic.host.saved_tensors import address_of

__all__ = ["SavedBytes"]


class SavedBytes:
    """Bytes of the distinct memory blocks that are saved: now (``live``) and at most (``peak``).

    Args:
        module: its parameters and buffers are not counted: they are in memory anyway.
    """

    def __init__(self, module: nn.Module | None = None) -> None:
        self.live = self.peak = 0
        resident = module.state_dict().values() if module else ()
        self._resident = {address_of(tensor) for tensor in resident}
        self._holders: Counter[int] = Counter()

    @contextmanager
    def watching(self) -> Iterator["SavedBytes"]:
        hooks = torch.autograd.graph.saved_tensors_hooks
        with hooks(lambda tensor: _Held(tensor, self), lambda held: held.tensor):
            yield self

    def _count(self, address: int, size: int, change: int) -> None:
        if address in self._resident:
            return
        before = self._holders[address]
        self._holders[address] += change
        self.live += size * ((before + change > 0) - (before > 0))
        self.peak = max(self.peak, self.live)


class _Held:
    """A tensor saved for a backward, counted as long as autograd holds it."""

    def __init__(self, tensor: Tensor, account: SavedBytes) -> None:
        # Detached: an output that its own node saved would hold that node in a cycle.
        self.tensor = tensor.detach()
        self._counted = address_of(tensor), tensor.untyped_storage().nbytes()
        self._account = account
        account._count(*self._counted, +1)

    def __del__(self) -> None:
        self._account._count(*self._counted, -1)
