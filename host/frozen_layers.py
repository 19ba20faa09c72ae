"""Layers with constant weights, whose derivatives exist to every order and keep almost nothing.

A layer is y = A x + b with A constant. Its derivative is the product with A^T, whose derivative is
the product with A: the two alternate. Neither needs the layer's input, and the weight may be found
again when it is wanted, so that nothing but the operator's few numbers waits for the backward pass.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CONVOLUTIONS", "Held", "Weights", "convolution", "linear"]

CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


class Weights(Protocol):
    """The protocol by which a derivative finds its weight."""

    def __call__(self, like: Tensor) -> AbstractContextManager[Tensor]:
        """Yield the weight on the device and in the dtype of ``like``, valid inside the block."""


@dataclass
class Held:
    """A weight of a module that stays in memory anyway."""

    weight: Tensor

    @contextmanager
    def __call__(self, like: Tensor) -> Iterator[Tensor]:
        yield self.weight


@dataclass
class _Linear:
    """x [B, in] -> x W^T [B, out]."""

    weights: Weights | None

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def transposed(self, g: Tensor, weight: Tensor) -> Tensor:
        return torch.mm(g, weight)


@dataclass
class _Convolution:
    """x [B, in, *size] -> x * W [B, out, *size']; needs the input's shape, not the input."""

    weights: Weights | None
    shape: torch.Size
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolve = CONVOLUTIONS[weight.ndim - 3]
        return convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def transposed(self, g: Tensor, weight: Tensor) -> Tensor:
        convolve = TRANSPOSED[weight.ndim - 3]
        beyond = self._beyond(g, weight)
        return convolve(
            g, weight, None, self.stride, self.padding, beyond, self.groups, self.dilation
        )

    def _beyond(self, g: Tensor, weight: Tensor) -> list[int]:
        """Tell for each axis how much at the input's end the strides do not reach."""
        return [
            size - ((length - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
            for size, length, kernel, stride, padding, dilation in zip(
                self.shape[2:],
                g.shape[2:],
                weight.shape[2:],
                self.stride,
                self.padding,
                self.dilation,
                strict=True,
            )
        ]


class _Layer(torch.autograd.Function):
    """A x + b, computed with the weight at hand, which is kept only if it cannot be found again."""

    @staticmethod
    def forward(ctx, x, operator, weight, bias):
        ctx.operator = operator
        if operator.weights is None:
            ctx.save_for_backward(weight)
        return operator.product(x, weight, bias)

    @staticmethod
    def backward(ctx, g):
        return _Product.apply(g, ctx.operator, True, *ctx.saved_tensors), None, None, None


class _Product(torch.autograd.Function):
    """A x, or A^T x if ``transposed``, with the weight found again; each derives to the other."""

    @staticmethod
    def forward(ctx, x, operator, transposed, *kept):
        comfy.ops.run_every_op()  # a user may interrupt in the middle of a backward pass
        ctx.operator, ctx.transposed = operator, transposed
        ctx.save_for_backward(*kept)
        with Held(*kept)(x) if kept else operator.weights(x) as weight:
            if transposed:
                return operator.transposed(x, weight)
            return operator.product(x, weight, None)

    @staticmethod
    def backward(ctx, g):
        kept = ctx.saved_tensors
        product = _Product.apply(g, ctx.operator, not ctx.transposed, *kept)
        return product, None, None, *[None] * len(kept)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, weights: Weights) -> Tensor:
    """x [..., in] -> x W^T + b [..., out]; derivatives find the weight through ``weights``."""
    rows = _Layer.apply(x.reshape(-1, x.shape[-1]), _Linear(weights), weight, bias)
    return rows.reshape(*x.shape[:-1], rows.shape[-1])  # out here: the host may write into a view


def convolution(func, args: tuple, kwargs: dict, weights: Weights | None = None) -> Tensor:
    """``func(*args, **kwargs)``, one of CONVOLUTIONS, keeping neither its input nor its weight.

    Autograd keeps the input of every convolution, needed or not; this keeps only its shape.
    ``weights`` says where derivatives find the weight; None: nowhere, autograd has to save it.
    """
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, args, strict=False)) | kwargs
    x, weight = given["input"], given["weight"]
    padding = given.get("padding", 0)
    learned = weight.requires_grad and not isinstance(weight, nn.Parameter)
    if not x.requires_grad or learned or x.ndim != weight.ndim or isinstance(padding, str):
        if weights is not None and not isinstance(weights, Held):
            given["weight"] = weight.clone()  # autograd will keep the weight, which does not stay
        return func(**given)

    def per_axis(value: int | Iterable[int]) -> list[int]:
        return [value] * (weight.ndim - 2) if isinstance(value, int) else list(value)

    operator = _Convolution(
        weights,
        x.shape,
        per_axis(given.get("stride", 1)),
        per_axis(padding),
        per_axis(given.get("dilation", 1)),
        given.get("groups", 1),
    )
    return _Layer.apply(x, operator, weight, given.get("bias"))
