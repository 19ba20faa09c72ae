"""Operators of ONNX that onnx2torch has not, or computes in another way, as PyTorch modules.

They stand in a domain of their own, under which onnx2torch finds them; ``onnx_rewrites`` moves a
graph's operators there. Sizes are taken from what arrives, so that free ones stay free.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..optional_packages import needed
from .onnx_checks import LARGEST_TENSOR
from .onnx_resize import Resize
from .onnx_windows import AveragePool, CropTransposed, SamePad

__all__ = ["DOMAIN", "REDUCTIONS", "register"]

DOMAIN = "zmagic"


def register() -> None:
    """Let onnx2torch find the operators of DOMAIN."""
    converters = needed("onnx2torch.node_converters", "onnx2torch")
    registry = needed("onnx2torch.node_converters.registry", "onnx2torch")
    common = needed("onnx2torch.utils.common", "onnx2torch")

    def add(kind: type[nn.Module]) -> None:
        @registry.add_converter(operation_type=kind.__name__, version=1, domain=DOMAIN)
        def _(node: Any, graph: Any) -> Any:
            return common.OperationConverterResult(
                kind(**node.attributes), common.onnx_mapping_from_node(node)
            )

    for kind in OPERATORS:
        try:
            converters.get_converter(kind.__name__, 1, DOMAIN)
        except NotImplementedError:
            add(kind)


class Slice(nn.Module):
    """Slice; ``starts``, ``ends`` and ``axes`` were attributes before version 10.

    onnx2torch 1.5 indexes with a list of slices, of which PyTorch warns at every call and which it
    will understand in another way.
    """

    def __init__(
        self, starts: Sequence[int] = (), ends: Sequence[int] = (), axes: Sequence[int] = ()
    ):
        super().__init__()
        self.fixed = (list(starts), list(ends), list(axes) or None)

    def forward(
        self,
        x: Tensor,
        starts: Tensor | None = None,
        ends: Tensor | None = None,
        axes: Tensor | None = None,
        steps: Tensor | None = None,
    ) -> Tensor:
        first, last, chosen = self.fixed
        if starts is not None and ends is not None:
            first, last = starts.tolist(), ends.tolist()
            chosen = None if axes is None else axes.tolist()
        places = list(range(len(first))) if chosen is None else chosen
        strides = [1] * len(first) if steps is None else steps.tolist()
        for axis, start, end, step in zip(places, first, last, strides, strict=True):
            if step < 0:  # place i of the flipped axis is place -i - 1
                x = torch.flip(x, [axis])
                start, end, step = -start - 1, -end - 1, -step
            x = x.movedim(axis, 0)[start:end:step].movedim(0, axis)
        return x


class Split(nn.Module):
    """Split (versions 13 and later): without sizes into equal parts, of which the last are shorter
    where they do not come out even.
    """

    def __init__(self, count: int, axis: int = 0):
        super().__init__()
        self.count, self.axis = count, axis

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        whole = x.shape[self.axis]
        each = -(-whole // self.count)
        parts = torch.split(
            x,
            [max(0, min(each, whole - i * each)) for i in range(self.count)]
            if sizes is None
            else sizes.tolist(),
            self.axis,
        )
        return parts[0] if self.count == 1 else parts


class Reduce(nn.Module):
    """The operators ``ReduceMean``, ``ReduceMax`` and so on, with their axes in both forms.

    Args:
        kind: what is behind "Reduce" in the operator's name.
        axes: the axes as an attribute, which they were before version 18.
        keepdims: reduced axes stay, of size 1.
        noop_with_empty_axes: without axes nothing is reduced; else all are.
    """

    def __init__(
        self,
        kind: str,
        axes: Sequence[int] = (),
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ):
        super().__init__()
        self.function = REDUCTIONS[kind]
        self.axes, self.keep, self.noop = list(axes), bool(keepdims), bool(noop_with_empty_axes)

    def forward(self, x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = self.axes if axes is None else axes.tolist()
        if not chosen and self.noop:  # as onnxruntime: each number by itself
            return self.function(x[..., None], [-1], False)
        return self.function(x, chosen or list(range(x.ndim)), self.keep)


def _product(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keep)
    return x


REDUCTIONS = {
    "L1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "L2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "LogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "LogSumExp": lambda x, axes, keep: x.logsumexp(axes, keep),
    "Max": lambda x, axes, keep: x.amax(axes, keep),
    "Mean": lambda x, axes, keep: x.mean(axes, keep),
    "Min": lambda x, axes, keep: x.amin(axes, keep),
    "Prod": _product,
    "Sum": lambda x, axes, keep: x.sum(axes, keep),
    "SumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
}


class Pad(nn.Module):
    """Pad, where a negative number takes away.

    ``pads`` and ``value`` were attributes before version 11.
    """

    def __init__(self, mode: str = "constant", pads: Sequence[int] = (), value: float = 0.0):
        super().__init__()
        if mode not in ("constant", "edge", "reflect", "wrap"):
            raise ValueError(f"unknown mode '{mode}'")
        self.mode, self.pads, self.value = mode, list(pads), value

    def forward(
        self,
        x: Tensor,
        pads: Tensor | None = None,
        value: Tensor | None = None,
        axes: Tensor | None = None,
    ) -> Tensor:
        numbers = self.pads if pads is None else pads.tolist()
        chosen = list(range(x.ndim)) if axes is None else axes.tolist()
        filled = self.value if value is None else float(value)
        pairs = zip(numbers[: len(chosen)], numbers[len(chosen) :], strict=True)
        for axis, (begin, end) in zip(chosen, pairs, strict=True):
            if begin or end:
                x = self._along(x, axis % x.ndim, begin, end, filled)
        return x

    def _along(self, x: Tensor, axis: int, begin: int, end: int, value: float) -> Tensor:
        x = x.narrow(axis, max(-begin, 0), x.shape[axis] + min(begin, 0) + min(end, 0))
        begin, end = max(begin, 0), max(end, 0)
        if x.numel() // max(x.shape[axis], 1) * (x.shape[axis] + begin + end) > LARGEST_TENSOR:
            raise ValueError(f"Pad of {list(x.shape)} by {begin} and {end}")
        if self.mode == "constant":
            behind = [0, 0] * (x.ndim - 1 - axis)
            return F.pad(x, [*behind, begin, end], value=value)
        size = x.shape[axis]
        places = _shown(np.arange(-begin, size + end), size, self.mode)
        return x.index_select(axis, torch.from_numpy(places).to(x.device))


def _shown(places: np.ndarray, size: int, mode: str) -> np.ndarray:
    """For places along an axis of ``size``, inside and outside, those inside that they show."""
    if mode == "edge":
        return places.clip(0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(2 * (size - 1), 1)
    return np.minimum(places % period, period - places % period)


class DepthToSpace(nn.Module):
    """DepthToSpace in the order "DCR": the blocks come first among the channels."""

    def __init__(self, blocksize: int):
        super().__init__()
        self.side = blocksize

    def forward(self, x: Tensor) -> Tensor:
        side = self.side
        batch, channels, height, width = x.shape
        x = x.reshape(batch, side, side, channels // side**2, height, width)
        x = x.permute(0, 3, 4, 1, 5, 2)  # [B, C, height, side, width, side]
        return x.reshape(batch, channels // side**2, height * side, width * side)


class SpaceToDepth(nn.Module):
    """SpaceToDepth: blocks of pixels become channels."""

    def __init__(self, blocksize: int):
        super().__init__()
        self.side = blocksize

    def forward(self, x: Tensor) -> Tensor:
        side = self.side
        batch, channels, height, width = x.shape
        x = x.reshape(batch, channels, height // side, side, width // side, side)
        x = x.permute(0, 3, 5, 1, 2, 4)  # [B, side, side, C, height, width]
        return x.reshape(batch, channels * side**2, height // side, width // side)


class LpNormalization(nn.Module):
    """LpNormalization: values along an axis, divided by their norm of order ``p``."""

    def __init__(self, axis: int = -1, p: int = 2):
        super().__init__()
        self.axis, self.p = axis, p

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, self.p, self.axis)


class GlobalMaxPool(nn.Module):
    """GlobalMaxPool: the largest value of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(tuple(range(2, x.ndim)), keepdim=True)


class RMSNormalization(nn.Module):
    """RMSNormalization: the axes from ``axis`` on, divided by the root of their mean square."""

    def __init__(self, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1):
        super().__init__()
        self.axis, self.epsilon = axis, epsilon

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        axes = list(range(self.axis % x.ndim, x.ndim))
        return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + self.epsilon) * scale


OPERATORS = (
    AveragePool,
    CropTransposed,
    DepthToSpace,
    GlobalMaxPool,
    LpNormalization,
    Pad,
    RMSNormalization,
    Reduce,
    Resize,
    SamePad,
    Slice,
    SpaceToDepth,
    Split,
)
