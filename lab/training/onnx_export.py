"""Networks as ONNX files, the form in which the pack's loaders take them."""

import copy
from pathlib import Path

import onnx
import torch
from torch import nn

from .running import write_whole

__all__ = ["write_onnx"]

# Understood by ONNX Runtime since 2021 and by all converters.
OPSET = 17


def write_onnx(path: Path, network: nn.Module, side: int, output: str) -> None:
    """A network of pictures ``[B, 3, side, side]`` with any B.

    Args:
        output: name of what the network returns.
    """
    network = copy.deepcopy(network).eval().to("cpu", memory_format=torch.contiguous_format)
    picture = torch.zeros(1, 3, side, side, device="cpu")

    def write(new: Path) -> None:
        torch.onnx.export(
            network,
            (picture,),
            str(new),
            input_names=["image"],
            output_names=[output],
            dynamic_axes={"image": {0: "batch"}, output: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,  # the newer exporter needs one more package
        )
        model = onnx.load(new)
        # The exporter loses sizes behind a reshape; loaders tell networks apart by them.
        with torch.no_grad():
            sizes = network(picture).shape[1:]
        dimensions = model.graph.output[0].type.tensor_type.shape.dim
        for dimension, size in zip(dimensions[1:], sizes, strict=True):
            dimension.dim_value = size
        onnx.save(model, new)

    write_whole(path, write)
