"""What guidance costs: operations by the part of a step that runs them, as it happens.

The counts are those of torch's FlopCounterMode: a multiplication and an addition are two
operations; what is neither a product of matrices nor a convolution counts as nothing. An
evaluation is made of pieces, and one of each kind is counted, since all of a kind do the same.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["BACKWARD", "FORWARD", "NETWORKS", "OperationCounter", "RunCost"]

log = logging.getLogger(__name__)

aten = torch.ops.aten
# The share of all that is no stage: the attribute networks.
NETWORKS = "networks"
FORWARD, BACKWARD = "forward", "backward"


def _convolution(x: Tensor, weight: Tensor, *args: Any, out: Tensor, **kwargs: Any) -> int:
    return 2 * out.numel() * math.prod(weight.shape[1:])


def _linear(x: Tensor, weight: Tensor, *args: Any, out: Tensor, **kwargs: Any) -> int:
    return 2 * x.numel() * weight.shape[0]


def _product(a: Tensor, b: Tensor, *args: Any, out: Tensor, **kwargs: Any) -> int:
    return 2 * out.numel() * a.shape[-1]


def _attention(
    query: Tensor, key: Tensor, value: Tensor, *args: Any, out: Any, **kwargs: Any
) -> int:
    values = query.numel() // query.shape[-1] * value.shape[-1]
    return 2 * key.shape[-2] * (query.numel() + values)


def _attention_backward(gradient: Tensor, *args: Any, out: Any, **kwargs: Any) -> int:
    """One product of the forward, which is made anew, and two gradients of each of its two."""
    return _attention(*args, out=out) * 5 // 2


# What torch's table lacks. In inference mode the first six are seen whole; elsewhere as the
# operations that they are made of.
MORE: dict[Any, Callable[..., int]] = {
    aten.linear: _linear,
    aten.matmul: _product,
    aten.conv1d: _convolution,
    aten.conv2d: _convolution,
    aten.conv3d: _convolution,
    aten.scaled_dot_product_attention: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class OperationCounter(TorchDispatchMode):
    """Counts the operations that run inside, by part and direction.

    Nothing is changed: every operation runs as it would, and one that cannot be counted makes the
    counts worthless (``is_whole``) and nothing else.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.totals: Counter[tuple[str, str]] = Counter()
        # Evaluations of each part, as they are told.
        self.runs: Counter[tuple[str, str]] = Counter()
        self.is_whole = True
        self._part = (NETWORKS, "")

    @contextmanager
    def part(self, name: str, direction: str) -> Iterator[None]:
        """Operations inside are those of the stage ``name``."""
        outer, self._part = self._part, (name, direction)
        try:
            yield
        finally:
            self._part = outer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        try:
            self.totals[self._part] += _operations(func, args, kwargs, out)
        except Exception:  # a formula's own, of arguments that it does not know
            log.debug("%s could not be counted", func, exc_info=True)
            self.is_whole = False
        return out


def _operations(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> int:
    packet = getattr(func, "overloadpacket", None)
    if packet is None:
        raise TypeError(f"{func} is not made of counted operations")
    options = {name: value for name, value in kwargs.items() if name != "out"}
    if packet in flop_registry:
        return flop_registry[packet](*args, **options, out_val=out)
    return MORE[packet](*args, **options, out=out) if packet in MORE else 0


class RunCost:
    """The operations of a run, as multiples of those of the model alone.

    Args:
        counted: whether to count; code that is compiled for the run cannot be watched.
    """

    def __init__(self, counted: bool = True):
        self._counted = counted
        self._known: dict[Hashable, OperationCounter] = {}
        self._times: Counter[Hashable] = Counter()
        self._way = 0

    @contextmanager
    def piece(self, *kind: Hashable, times: int = 1) -> Iterator[OperationCounter | None]:
        """A piece of guided work; the first of its kind is counted, and yields the counter.

        One that fails is no part of the cost.

        Args:
            kind: pieces of one kind take the same operations.
            times: how often it counts; 0: not here, but among the ``plain`` ones of ``shares``.
        """
        kind = (self._way, *kind)
        if not self._counted or kind in self._known:
            yield None
        else:
            with OperationCounter() as counter:
                yield counter
            self._counted &= counter.is_whole
            self._known[kind] = counter
        self._times[kind] += times

    def change(self) -> None:
        """From here on all work is done in another way, and is counted anew."""
        self._way += 1

    def shares(self, steps: int, plain: int, stage: str) -> dict[str, float] | None:
        """The operations of the run, in plain runs of as many steps; None if they are not known.

        Args:
            steps: evaluations of the model that the run would have taken without guidance.
            plain: those that it took besides the pieces.
            stage: the name of the model's stage.
        """
        forward = self._forward(stage)
        if not self._counted or not forward or not steps:
            return None
        total: Counter[str] = Counter({stage: plain * forward})
        for kind, times in self._times.items():
            for (part, _), operations in self._known[kind].totals.items():
                total[part] += times * operations
        return {part: number / (steps * forward) for part, number in total.items()}

    def _forward(self, stage: str) -> float:
        """Operations of one evaluation of the model; a cache that answers for it takes fewer."""
        made = (stage, FORWARD)
        known = self._known.values()
        return max((c.totals[made] / c.runs[made] for c in known if c.runs[made]), default=0.0)
