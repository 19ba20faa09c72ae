"""Layers as another pack brings them: an 8-bit weight, made whole anew in each forward pass.

They have the outside of the layers that GGUF loaders bring (a class of operations for the host, a
cast of their own) and of those that quantization libraries bring (a forward of their own).
"""

import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 32  # values that share a scale


class _Quantized(nn.Module):
    """Holds a weight as 8-bit blocks, and a patch of low rank that it adds when it makes it."""

    comfy_cast_weights = True

    def quantize(self, generator: torch.Generator) -> None:
        weight = self.weight
        blocks = F.pad(weight.flatten(), (0, -weight.numel() % BLOCK)).reshape(-1, BLOCK)
        scales = blocks.abs().amax(1, keepdim=True).clamp_min(1e-8) / 127
        self.whole = weight.shape
        self.scales = nn.Parameter(scales.half(), requires_grad=False)
        values = (blocks / scales).round().to(torch.int8)
        self.weight = nn.Parameter(values, requires_grad=False)
        self.down = torch.randn(2, weight[0].numel(), generator=generator) * 0.1
        self.up = torch.randn(weight.shape[0], 2, generator=generator) * 0.1

    def make_weight(self, dtype: torch.dtype) -> Tensor:
        whole = (self.weight.to(dtype) * self.scales.to(dtype)).flatten()
        weight = whole[: self.whole.numel()].reshape(self.whole)
        return weight + (self.up @ self.down).reshape(self.whole).to(dtype)

    def cast_bias_weight(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return self.make_weight(x.dtype), bias


class CastingOperations(comfy.ops.manual_cast):
    """Quantized layers that cast their own weights where the host lets layers do so."""

    class Linear(_Quantized, comfy.ops.manual_cast.Linear):
        def forward_comfy_cast_weights(self, x, *args, **kwargs):
            return F.linear(x, *self.cast_bias_weight(x))

    class Conv2d(_Quantized, comfy.ops.manual_cast.Conv2d):
        def forward_comfy_cast_weights(self, x, *args, **kwargs):
            return self._conv_forward(x, *self.cast_bias_weight(x))


class MultiplyingOperations(comfy.ops.manual_cast):
    """Quantized layers with a forward of their own, which knows nothing of the host."""

    class Linear(_Quantized, comfy.ops.manual_cast.Linear):
        forward_comfy_cast_weights = None

        def forward(self, x):
            weight, bias = self.cast_bias_weight(x)
            product = x @ weight.t()
            return product if bias is None else product + bias

    class Conv2d(_Quantized, comfy.ops.manual_cast.Conv2d):
        forward_comfy_cast_weights = None

        def forward(self, x):
            weight, bias = self.cast_bias_weight(x)
            return F.conv2d(x, weight, bias, self.stride, self.padding)


def quantize(module: nn.Module) -> int:
    """Quantize every layer that can be; bytes of all weights when they are whole."""
    generator = torch.Generator().manual_seed(12)
    size = 0
    for layer in module.modules():
        if isinstance(layer, _Quantized):
            size += layer.weight.nbytes
            layer.quantize(generator)
    return size
