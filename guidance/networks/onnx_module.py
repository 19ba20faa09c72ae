"""ONNX files as differentiable PyTorch modules, by onnx2torch.

What onnx2torch leaves open is settled here and in the onnx_*.py beside: exports whose
batch size is fixed, files in half precision, outputs in the middle of a network, channels that
come last, weights in other files, and one message for all operators that it does not know.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..optional_packages import needed
from .onnx_file import OnnxSignature, read_model, signature_of, to_float32
from .onnx_graph import converted, differences, keep_outputs, plain

__all__ = ["OnnxModule", "load_onnx"]

log = logging.getLogger(__name__)

# Largest difference between two images judged together and one by one, in float32 and relative to
# the output's largest magnitude, that counts as rounding.
SAME = 1e-3

# Side of the image on which a network of free size is tried: a multiple of every usual stride.
FREE_SIDE = 128


class OnnxModule(nn.Module):
    """A frozen network ``image [B, C, h, w] -> tuple of outputs [B, ...]`` in float32.

    In a file whose channels come last, images and outputs of four axes are turned: outside they
    are ``[B, C, h, w]`` always.

    Attributes:
        signature: what the file says of its input.
        outputs: names of the outputs, in the order in which they are returned.
        batched: whether it takes several images at once; else it sees them one by one.

    Raises:
        ValueError: it cannot be run on one image.
    """

    def __init__(self, graph: nn.Module, signature: OnnxSignature, outputs: Sequence[str]):
        super().__init__()
        self.graph = graph
        self.float().eval().requires_grad_(False)
        self.signature = signature
        self.outputs = tuple(outputs)
        self.batched = self._takes_batches()

    @property
    def input_name(self) -> str:
        """The input's name in the file."""
        return self.signature.input_name

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The input's shape in the file, None where a size is free."""
        return self.signature.input_shape

    @property
    def channels(self) -> int | None:
        """Channels of the input image, None if free."""
        return self.signature.channels

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the input image, None if either is free."""
        return self.signature.size

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if self.batched or image.shape[0] == 1:
            return self._run(image)
        # The file was exported for one image (a Reshape to [1, ...], say): one by one.
        singles = [self._run(single) for single in image.split(1)]
        return tuple(torch.cat(parts) for parts in zip(*singles, strict=True))

    def _run(self, image: Tensor) -> tuple[Tensor, ...]:
        if not self.signature.channels_last:
            return _as_tuple(self.graph(image))
        result = _as_tuple(self.graph(image.movedim(1, -1)))
        return tuple(part.movedim(-1, 1) if part.ndim == 4 else part for part in result)

    @torch.no_grad()
    def _takes_batches(self) -> bool:
        """Whether two images judged together give what each gives alone."""
        height, width = self.size or (FREE_SIDE, FREE_SIDE)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(2, self.channels or 3, height, width, generator=generator)
        try:
            alone = [self._run(image) for image in images.split(1)]
        except (RuntimeError, IndexError, ValueError, NotImplementedError) as error:
            if self.size is None:
                return False  # it may be particular about its size, which is not known yet
            raise ValueError(f"cannot be run on one image: {error}") from error
        try:
            together = self._run(images)
        except (RuntimeError, IndexError, ValueError, NotImplementedError):
            return False
        return all(
            _same(joint[i : i + 1], single)
            for i in range(2)
            for joint, single in zip(together, alone[i], strict=True)
        )


def load_onnx(path: str | Path, outputs: Sequence[str] = ()) -> OnnxModule:
    """Read an ONNX file with one image input as a frozen differentiable module.

    Args:
        path: the file; external weights are read only from its own folder or below.
        outputs: tensors to return, by name, inside the network too; none: the file's own.

    Raises:
        ValueError: onnx2torch is not installed, the file is no ONNX file, it has not exactly one
            image input, a tensor does not exist, weights lie outside the file's folder, or
            operators have no differentiable counterpart; the message lists all of them.
    """
    path = Path(path)
    needed("onnx2torch")
    # Ordinary weights, whatever mode the caller is in.
    with torch.inference_mode(False):
        model = plain(read_model(path))
        signature = signature_of(model, path)
        outputs = tuple(outputs) or signature.outputs
        try:
            keep_outputs(model, outputs)
            to_float32(model)
            inexact = differences(model)
            module = OnnxModule(converted(model), signature, outputs)
        except ValueError as error:
            raise ValueError(f"{path.name} {error}") from error
    if inexact:
        log.warning(
            "%s: PyTorch has no %s; its results may differ a little from other programs'",
            path.name,
            " and no ".join(inexact),
        )
    return module


def _as_tuple(result: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _same(joint: Tensor, single: Tensor) -> bool:
    if joint.shape != single.shape:
        return False
    difference = (joint - single).abs()
    return bool((difference <= SAME * single.abs().max()).all())
