"""Operators of ONNX in the place of onnx2torch's own."""

import torch
from torch import Tensor, nn

__all__ = ["Slice", "with_our_operators"]


class Slice(nn.Module):
    """ONNX's Slice (versions 10 and later).

    onnx2torch 1.5 indexes with a list of slices, of which PyTorch warns at every call and which it
    will understand in another way.
    """

    def forward(
        self,
        x: Tensor,
        starts: Tensor,
        ends: Tensor,
        axes: Tensor | None = None,
        steps: Tensor | None = None,
    ) -> Tensor:
        count = len(starts)
        axes = range(count) if axes is None else axes.tolist()
        steps = [1] * count if steps is None else steps.tolist()
        for axis, start, end, step in zip(axes, starts.tolist(), ends.tolist(), steps, strict=True):
            if step < 0:  # place i of the flipped axis is place -i - 1
                x = torch.flip(x, [axis])
                start, end, step = -start - 1, -end - 1, -step
            x = x.movedim(axis, 0)[start:end:step].movedim(0, axis)
        return x


def with_our_operators(graph: nn.Module) -> nn.Module:
    """A converted network with the operators of this file."""
    for name, module in graph.named_children():
        if type(module).__name__ == "OnnxSlice":
            graph.add_module(name, Slice())
    return graph
