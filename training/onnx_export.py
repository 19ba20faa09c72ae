"""Networks as ONNX files, the form in which the pack's loaders take them."""

from pathlib import Path

import torch
from torch import nn

from .running import write_whole

__all__ = ["write_onnx"]

# Understood by ONNX Runtime since 2021 and by all converters.
OPSET = 17


def write_onnx(path: Path, network: nn.Module, side: int, output: str) -> None:
    """A network of pictures ``[B, 3, side, side]`` with any B; a file that is complete or absent.

    Args:
        output: what it returns, as a name.
    """
    network = network.eval().to(memory_format=torch.contiguous_format)
    write_whole(
        path,
        lambda new: torch.onnx.export(
            network,
            (torch.zeros(1, 3, side, side),),
            str(new),
            input_names=["image"],
            output_names=[output],
            dynamic_axes={"image": {0: "batch"}, output: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,  # the newer exporter needs one more package
        ),
    )
