"""Whether the model itself answered, or a cache of another node in its place, and with gradients.

A cached answer looks like any other: ``x + residual`` even has a gradient. So a few modules,
spread over the model, tell whether they ran. An answer of which a part was computed without
gradients looks like any other, too: all modules tell whether they had to do without.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["ModelCalls"]

WITNESSES = 8  # modules that are watched
# Share of the usual witnesses below which a call was answered by a cache: those run a block or
# two at most. Nodes that leave single layers out on purpose stay above it.
LEAST = 0.5


class ModelCalls:
    """Watches the calls of one diffusion model during a run.

    Attributes:
        compiled: whether a part of the model is compiled. Where it runs compiled it must not be
            watched.
        detached: whether a module had to compute with what depends on x, and without gradients.
    """

    def __init__(self, model: nn.Module):
        modules = list(model.modules())
        self.compiled = any(map(_is_compiled, modules))
        self.detached = False
        self._leaves = leaves = [m for m in modules if not m._modules and m._parameters]
        spread = {(2 * k + 1) * len(leaves) // (2 * WITNESSES) for k in range(WITNESSES)}
        self._witnesses = [leaves[k] for k in sorted(spread) if k < len(leaves)]
        self._usual: set[int] = set()  # the witnesses of the fullest call so far
        self._calls: list[set[int]] = []

    def asked(self, executor: Callable, *args, **kwargs):
        """Wrapper around one call of the model: the host splits an evaluation into several."""
        self._calls.append(set())
        return executor(*args, **kwargs)

    @contextmanager
    def evaluation(self, *, with_gradients: bool = False) -> Iterator[None]:
        """Watch the calls inside the block, which is one evaluation.

        Args:
            with_gradients: whether it is to be differentiated.
        """
        self._calls = []
        handles = [
            module.register_forward_pre_hook(self._witness(k))
            for k, module in enumerate(self._witnesses)
        ]
        if with_gradients and not self.detached:
            handles += [m.register_forward_pre_hook(self._complain) for m in self._leaves]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        self._usual = max([self._usual, *self._calls], key=len)

    @property
    def reused(self) -> bool:
        """Whether the last evaluation, or a part of it, was answered without the model."""
        if not self._witnesses:
            return False
        least = LEAST * len(self._usual)
        return not self._calls or any(not call or len(call) < least for call in self._calls)

    def _complain(self, module: nn.Module, args: tuple) -> None:
        if not torch.is_grad_enabled():
            self.detached |= any(isinstance(a, Tensor) and a.requires_grad for a in args)

    def _witness(self, k: int) -> Callable:
        def ran(module: nn.Module, args: tuple) -> None:
            if not self._calls:  # called past the host's wrappers
                self._calls.append(set())
            self._calls[-1].add(k)

        return ran


def _is_compiled(module: nn.Module) -> bool:
    """Whether a module runs compiled: a hook on it would have it compiled anew."""
    return type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None
