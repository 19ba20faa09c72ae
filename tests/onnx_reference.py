"""What onnxruntime makes of a file: the reference of our own modules."""

import numpy as np
import onnxruntime
import torch
from torch import Tensor

__all__ = ["by_onnxruntime"]

onnxruntime.set_default_logger_severity(4)  # it remarks on weights that are listed as inputs


def by_onnxruntime(path, images: Tensor, outputs: list[str] | None = None) -> list[Tensor]:
    """Run the file on one image at a time, whatever batch it was exported for."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    results = [session.run(outputs, {name: image.numpy()}) for image in images.split(1)]
    return [torch.from_numpy(np.concatenate(parts)) for parts in zip(*results, strict=True)]
