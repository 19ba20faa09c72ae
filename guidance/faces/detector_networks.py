"""Face detectors: insightface's SCRFD, and UltraFace, which may be used freely.

They run on the CPU on an 8-bit copy of the picture: where a face is needs no gradient, and the
graphics card runs the diffusion model at the same time.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms

from ..networks.onnx_header import read_onnx_header
from ..networks.onnx_signature import OnnxSignature
from ..optional_packages import needed
from ..wording import one_line
from .detections import Detection

__all__ = ["Scrfd", "UltraFace", "is_detector", "read_detector"]

# By the number of outputs the insightface library tells its detectors: scores and boxes of 3 or 5
# strides, with or without points. They are a score, four edges and five points for each anchor.
SCRFD_OUTPUTS = (6, 9, 10, 15)
SCRFD_WIDTHS = (1, 4, 10)

# Sides of the square that SCRFD looks at, if the file leaves it free: the library's usual one, and
# the small one in which it finds faces that fill the picture.
SCRFD_SIDES = (640, 128)

# What UltraFace's authors subtract from and divide 8-bit values by, and the overlap above which
# they take two boxes for one face.
ULTRAFACE_MEAN, ULTRAFACE_STD, ULTRAFACE_OVERLAP = 127.0, 128.0, 0.3


def is_detector(header: OnnxSignature) -> bool:
    """Whether a file is a detector of a known kind."""
    return _kind(header) is not None


def read_detector(path: Path, min_score: float) -> "Scrfd | UltraFace":
    """Read the detector in an ONNX file, whose kind is told by its outputs.

    Args:
        min_score: the least certainty of a face that is reported, in [0, 1].

    Raises:
        ValueError: the file is none of the two kinds, cannot be read, or a package is missing.
    """
    header = read_onnx_header(path)
    kind = _kind(header)
    if kind is None:
        raise ValueError(
            f"{path.name} is no face detector: expected SCRFD of insightface (6 or 9 outputs) or "
            f"UltraFace (scores [1, N, 2] and boxes [1, N, 4]), it maps {header}"
        )
    try:
        return kind(path, header, min_score)
    except ValueError:  # a package is missing
        raise
    except Exception as error:  # of onnxruntime's own kinds
        raise ValueError(
            f"{path.name} cannot be run: get another copy of it\n({one_line(error)})"
        ) from error


class Scrfd:
    """Guo et al., "Sample and Computation Redistribution for Efficient Face Detection", ICLR 2022,
    run by the insightface library."""

    def __init__(self, path: Path, header: OnnxSignature, min_score: float):
        model_zoo = needed("insightface.model_zoo", "insightface")
        # The path of a file that exists: the library never downloads then.
        self.model = model_zoo.get_model(str(path), providers=["CPUExecutionProvider"])
        self.model.prepare(ctx_id=-1, det_thresh=min_score)
        height, width = header.input[2:]
        self.sizes = [(side, side) for side in SCRFD_SIDES]
        if height and width:
            self.sizes = [(width, height)]

    def __call__(self, picture: Tensor) -> list[Detection]:
        height, width = picture.shape[-2:]
        pixels = _eight_bit(picture).permute(1, 2, 0).flip(2).contiguous().numpy()  # BGR
        for size in self.sizes:
            found, points = self.model.detect(pixels, input_size=size)
            if len(found):
                break
        frame = torch.tensor((width, height), dtype=torch.float64)
        # The library's whole numbers are pixel centers.
        places = (torch.from_numpy(np.asarray(found, dtype=float)[:, :4]) + 0.5) / frame.repeat(2)
        if points is not None:
            points = (torch.from_numpy(np.asarray(points, dtype=float)) + 0.5) / frame
        return [
            Detection(box, float(found[i, 4]), None if points is None else points[i])
            for i, box in enumerate(places)
        ]


class UltraFace:
    """The detectors of github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB: boxes only.

    The picture is fitted into the network's input with its shape kept; beside it is gray.
    """

    def __init__(self, path: Path, header: OnnxSignature, min_score: float):
        onnxruntime = needed("onnxruntime")
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.input = next(iter(header.inputs))
        height, width = header.input[2:]
        assert height is not None and width is not None  # as all that are published
        self.size = (height, width)
        self.min_score = min_score

    def __call__(self, picture: Tensor) -> list[Detection]:
        fitted, part = self._fitted(_eight_bit(picture).float())
        outputs = self.session.run(None, {self.input: fitted[None].numpy()})
        scores, boxes = (
            torch.from_numpy(next(out[0] for out in outputs if out.shape[-1] == width))
            for width in (2, 4)
        )
        certain = scores[:, 1] >= self.min_score
        scores, boxes = scores[certain, 1], boxes[certain].double() / part.repeat(2)
        kept = nms(boxes.float(), scores, ULTRAFACE_OVERLAP)
        return [Detection(boxes[i], float(scores[i])) for i in kept.tolist()]

    def _fitted(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """``[3, H, W]`` in the network's frame, and the part (x, y) of the frame that it fills."""
        height, width = self.size
        scale = min(height / pixels.shape[-2], width / pixels.shape[-1])
        inner = [max(1, round(side * scale)) for side in pixels.shape[-2:]]
        small = F.interpolate(pixels[None], size=inner, mode="bilinear", antialias=True)[0]
        frame = torch.zeros(3, height, width)
        frame[:, : inner[0], : inner[1]] = (small - ULTRAFACE_MEAN) / ULTRAFACE_STD
        return frame, torch.tensor((inner[1] / width, inner[0] / height), dtype=torch.float64)


def _kind(header: OnnxSignature) -> type | None:
    if len(header.input) != 4:
        return None
    widths = [shape[-1] if shape else None for shape in header.outputs.values()]
    if len(widths) in SCRFD_OUTPUTS and set(widths) <= {*SCRFD_WIDTHS, None}:
        return Scrfd
    return UltraFace if sorted(filter(None, widths)) == [2, 4] and all(header.input) else None


def _eight_bit(picture: Tensor) -> Tensor:
    return (picture.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
