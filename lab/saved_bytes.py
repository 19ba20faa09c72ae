"""How much autograd keeps for a backward, counted as it is kept."""

from contextlib import contextmanager

import torch

__all__ = ["SavedBytes"]


class SavedBytes:
    """Bytes of distinct storages that autograd keeps for a backward: now and at most."""

    def __init__(self):
        self.holders: dict[int, int] = {}
        self.live = self.peak = 0

    @contextmanager
    def watching(self):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: _Held(t, self), lambda h: h.tensor):
            yield self


class _Held:
    """A tensor saved for backward, counted as long as autograd holds it."""

    def __init__(self, tensor: torch.Tensor, account: SavedBytes):
        # Detached: an output that its own node saved would hold that node in a cycle.
        self.tensor, self.account = tensor.detach(), account
        storage = tensor.untyped_storage()
        self.key, self.bytes = storage.data_ptr(), storage.nbytes()
        holders = account.holders
        holders[self.key] = holders.get(self.key, 0) + 1
        if holders[self.key] == 1:
            account.live += self.bytes
            account.peak = max(account.peak, account.live)

    def __del__(self):
        self.account.holders[self.key] -= 1
        if self.account.holders[self.key] == 0:
            self.account.live -= self.bytes
