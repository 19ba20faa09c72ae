"""The file of the face parser that everybody uses, with random weights."""

import warnings
from pathlib import Path

import torch

from zmagic.lab.face_parser import BiSeNet

# Trained parsers give scores of this size; random ones are near 0, and every class as likely.
SCORE = 4.0

# The operator set of the published files.
OPSET = 20


def write_bisenet(folder: Path, side: int = 512) -> Path:
    """``folder/face_parsing_resnet18.onnx``, the same at every call.

    Args:
        side: of the input; the published files have 512.
    """
    path = folder / "face_parsing_resnet18.onnx"
    with torch.random.fork_rng(), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(0)
        model = BiSeNet().eval()
        picture = torch.rand(1, 3, side, side)
        with torch.no_grad():
            model.head[1].weight *= SCORE / model(picture)[0].std()
        torch.onnx.export(
            model,
            picture,
            str(path),
            opset_version=OPSET,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch_size"}, "output": {0: "batch_size"}},
            dynamo=False,
        )
    return path
