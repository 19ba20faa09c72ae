"""Layers of other packs that make their weight anew in every forward pass, as GGUF's do.

Such a layer dequantizes and patches in its own way, and multiplies: F.linear, a convolution or a
matrix product. Autograd would keep that weight, in full precision, until the backward pass. Here
the backward pass runs the layer's own code once more, up to its product, and takes the weight.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .frozen_layers import CONVOLUTIONS, convolution, linear
from .weight_hooks import use_hooks

__all__ = ["RemakingForward", "own_cast"]

_MATRIX_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm)
_CAST_PATH = "forward_comfy_cast_weights"


def own_cast(module: nn.Module) -> str | None:
    """Name the method in which another pack's layer makes its weight and uses it, or None."""
    cast_path = getattr(type(module), _CAST_PATH, None)
    method = cast_path or type(module).forward
    project = (getattr(method, "__module__", None) or "torch").partition(".")[0]
    if project in ("torch", "comfy") or module._modules or not _is_layer(module, cast_path):
        return None
    return _CAST_PATH if cast_path is not None else "forward"


def _is_layer(module: nn.Module, cast_path: Callable | None) -> bool:
    """A linear layer or a convolution, whose weight does not depend on its input."""
    if cast_path is not None or isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        return True
    return "out_features" in module.__dict__ or "out_channels" in module.__dict__


@dataclass
class RemakingForward:
    """Takes the place of a layer's method: the same, but products do not keep their weight."""

    patcher: Any
    method: Callable

    def __call__(self, *args, **kwargs):
        x = args[0] if args else None
        if not (isinstance(x, Tensor) and x.requires_grad and torch.is_grad_enabled()):
            return self.method(*args, **kwargs)
        with _RemadeProducts(_Call(self.patcher, self.method, x, args[1:], kwargs)):
            return self.method(*args, **kwargs)


class _Call:
    """One call of a layer's method, of which only the shape of the input is kept."""

    def __init__(self, patcher: Any, method: Callable, x: Tensor, args: tuple, kwargs: dict):
        self._patcher, self._hooks = patcher, getattr(patcher, "current_hooks", None)
        self._method, self._args, self._kwargs = method, args, kwargs
        self._shape, self._dtype, self._device = x.shape, x.dtype, x.device

    def weight(self, number: int) -> Tensor | None:
        """The weight of its product ``number``, made again; None if it makes none this time."""
        use_hooks(self._patcher, self._hooks)
        # An input of no memory will do: the method is left before it multiplies. It requires a
        # gradient as before, so that the same products are counted.
        x = torch.zeros((), dtype=self._dtype, device=self._device, requires_grad=True)
        try:
            with torch.enable_grad(), _Products(number):
                self._method(x.expand(self._shape), *self._args, **self._kwargs)
        except _Found as found:
            return found.weight
        return None


@dataclass
class _Remade:
    """Where a derivative finds a weight: in the layer's own code."""

    call: _Call
    number: int
    shape: torch.Size

    @contextmanager
    def __call__(self, like: Tensor) -> Iterator[Tensor]:
        weight = self.call.weight(self.number)
        if weight is None or weight.shape != self.shape:
            raise RuntimeError(
                "a layer of another node makes another weight in the backward pass than in the "
                "forward pass"
            )
        yield weight.to(like.dtype)


class _RemadeProducts(TorchFunctionMode):
    """While a layer's method runs: its products with weights made there find them again."""

    def __init__(self, call: _Call) -> None:
        super().__init__()
        self._call, self._count = call, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        weight = _made_weight(func, args, kwargs)
        if weight is None:
            return func(*args, **kwargs)
        weights = _Remade(self._call, self._count, weight.shape)
        self._count += 1
        if func in CONVOLUTIONS:
            return convolution(func, args, kwargs, weights)
        x = args[0] if args else kwargs["input"]
        bias = args[2] if len(args) > 2 else kwargs.get("bias")
        return linear(x, weight, bias, weights)


class _Products(TorchFunctionMode):
    """Raises the weight of product ``number``."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._left = number

    def __torch_function__(self, func, types, args=(), kwargs=None):
        weight = _made_weight(func, args, kwargs or {})
        if weight is not None:
            if self._left == 0:
                raise _Found(weight)
            self._left -= 1
        return func(*args, **(kwargs or {}))


class _Found(BaseException):
    """Carries a weight out of a layer's method, past whatever that catches."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight


def _made_weight(func: Callable, args: tuple, kwargs: dict) -> Tensor | None:
    """The weight [out, in, ...] of a product with the layer's input, if the layer made it.

    A parameter stays in memory anyway, and one that requires a gradient is no constant.
    """
    if func is F.linear or func in CONVOLUTIONS:
        x = args[0] if args else kwargs["input"]
        weight = args[1] if len(args) > 1 else kwargs["weight"]
    elif func in _MATRIX_PRODUCTS and len(args) == 2:
        x, weight = args
        weight = weight.t() if weight.ndim == 2 else None
    else:
        return None
    if type(weight) is not Tensor or weight.is_inference() or weight.requires_grad:
        return None
    return weight if x.requires_grad else None
