"""What ONNX puts around the windows of convolutions and poolings, as modules."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AveragePool", "CropTransposed", "SamePad"]


class SamePad(nn.Module):
    """What ``auto_pad`` puts around the last axes, so that a window of stride s gives 1/s of each.

    Args:
        kernel_shape, strides, dilations: the attributes of the operator behind.
        lower: the odd one goes in front.
        value: what is put there.
    """

    def __init__(
        self,
        kernel_shape: Sequence[int],
        strides: Sequence[int],
        dilations: Sequence[int],
        lower: int,
        value: float,
    ):
        super().__init__()
        self.windows = tuple(zip(kernel_shape, strides, dilations, strict=True))
        self.lower, self.value = bool(lower), value

    def forward(self, x: Tensor) -> Tensor:
        sides: list[int] = []
        for size, window in zip(x.shape[2:], self.windows, strict=True):
            sides = [*_same(size, *window, self.lower), *sides]
        return F.pad(x, sides, value=self.value)


def _same(size: int, kernel: int, stride: int, dilation: int, lower: bool) -> tuple[int, int]:
    """What ``auto_pad`` puts before and behind an axis."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    smaller = total // 2
    return (total - smaller, smaller) if lower else (smaller, total - smaller)


class AveragePool(nn.Module):
    """AveragePool with any padding, as onnxruntime has it: axis by axis.

    Args:
        kernel_shape, strides, dilations: the window's, for each of the last axes.
        pads: before all of them, then behind; not used with ``auto_pad``.
        auto_pad: "NOTSET", "SAME_UPPER" or "SAME_LOWER".
        count_include_pad: what was put around counts as pixels.
        ceil_mode: a last window that is not full counts.
    """

    def __init__(
        self,
        kernel_shape: Sequence[int],
        strides: Sequence[int],
        dilations: Sequence[int],
        pads: Sequence[int],
        auto_pad: str = "NOTSET",
        count_include_pad: int = 0,
        ceil_mode: int = 0,
    ):
        super().__init__()
        self.windows = tuple(zip(kernel_shape, strides, dilations, strict=True))
        self.pads = tuple(zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True))
        self.auto_pad = auto_pad
        self.include, self.ceil = bool(count_include_pad), bool(ceil_mode)

    def forward(self, x: Tensor) -> Tensor:
        for axis, window in enumerate(self.windows, start=2):
            x = self._along(x, axis, *window)
        return x

    def _along(self, x: Tensor, axis: int, kernel: int, stride: int, dilation: int) -> Tensor:
        size, reach = x.shape[axis], (kernel - 1) * dilation
        begin, end = self.pads[axis - 2]
        if self.auto_pad != "NOTSET":
            begin, end = _same(size, kernel, stride, dilation, self.auto_pad == "SAME_LOWER")
        steps = size + begin + end - reach - 1
        count = (-(-steps // stride) if self.ceil else steps // stride) + 1
        if self.ceil and (count - 1) * stride >= size + begin:
            count -= 1  # it would lie beside the picture
        starts = np.arange(count) * stride - begin
        places = starts[:, None] + np.arange(kernel) * dilation  # [count, kernel]
        inside = (places >= 0) & (places < size)
        counted = (places >= -begin) & (places < size + end) if self.include else inside
        matrix = np.zeros((count, size), dtype=np.float32)
        rows, columns = np.nonzero(inside)
        np.add.at(matrix, (rows, places[rows, columns]), 1.0)
        matrix /= np.maximum(counted.sum(1, keepdims=True), 1)
        weights = torch.from_numpy(matrix).to(x.device, x.dtype)
        return (x.movedim(axis, -1) @ weights.T).movedim(-1, axis)


class CropTransposed(nn.Module):
    """What ConvTranspose takes away from its full result; below 0 it adds.

    Args:
        kernel_shape, strides, dilations, output_padding: the convolution's attributes.
        pads: before all axes, then behind; empty: what ``output_shape`` leaves over.
        output_shape: the sizes of the last axes; empty: ``strides`` times the input's.
        upper: the odd one is taken at the end.
    """

    def __init__(
        self,
        kernel_shape: Sequence[int],
        strides: Sequence[int],
        dilations: Sequence[int],
        output_padding: Sequence[int],
        pads: Sequence[int] = (),
        output_shape: Sequence[int] = (),
        upper: int = 0,
    ):
        super().__init__()
        self.windows = tuple(zip(kernel_shape, strides, dilations, output_padding, strict=True))
        self.pads, self.output_shape, self.upper = tuple(pads), tuple(output_shape), bool(upper)

    def forward(self, full: Tensor) -> Tensor:
        sides: list[int] = []
        for axis, window in enumerate(self.windows):
            begin, end = self._taken(axis, full.shape[axis + 2], *window)
            sides = [-begin, -end, *sides]
        return F.pad(full, sides)

    def _taken(
        self, axis: int, size: int, kernel: int, stride: int, dilation: int, more: int
    ) -> tuple[int, int]:
        if self.pads:
            return self.pads[axis], self.pads[axis + len(self.windows)]
        before = (size - (kernel - 1) * dilation - 1 - more) // stride + 1
        wanted = self.output_shape[axis] if self.output_shape else before * stride
        total = max(size - wanted, 0)
        smaller = total // 2
        begin, end = (smaller, total - smaller) if self.upper else (total - smaller, smaller)
        return begin, end + min(size - wanted, 0)
