"""ONNX files as differentiable PyTorch modules, by onnx2torch.

What onnx2torch does not handle is handled here and in the other onnx_*.py: exports whose
batch size is fixed, files in half precision, outputs in the middle of a network, channels that
come last, weights in other files, and one message for all operators that it does not know.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..optional_packages import needed
from ..wording import one_line
from .onnx_checks import Unusable
from .onnx_comparison import OnnxReference, noise
from .onnx_file import read_model, to_float32
from .onnx_graph import converted, keep_outputs, plain
from .onnx_signature import OnnxSignature

__all__ = ["OnnxModule", "load_onnx"]

# What operators raise on images that do not fit them.
CONVERTED = (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError, AssertionError)

# Largest difference between two images evaluated together and one by one, in float32 and relative
# to the output's largest magnitude, that counts as rounding.
SAME = 1e-3

# Side of the image on which a network of free size is tried: a multiple of every usual stride.
FREE_SIDE = 128


class OnnxModule(nn.Module):
    """A frozen network ``image [B, C, h, w] -> tuple of outputs [B, ...]`` in float32.

    In a file whose channels come last, images and outputs of four axes are turned: outside they
    are ``[B, C, h, w]`` always. A single number is one of the axis of the batch, ``[B]``.

    Args:
        graph: the converted file.
        signature: what the file says of its input.
        outputs: names of the outputs, in the order in which they are returned.
        free_size: height and width at which a network of free size is tried.

    Attributes:
        batched: whether it takes several images at once; else it sees them one by one.

    Raises:
        Unusable: it cannot be run on one image.
    """

    def __init__(
        self,
        graph: nn.Module,
        signature: OnnxSignature,
        outputs: Sequence[str],
        free_size: tuple[int, int] = (FREE_SIDE, FREE_SIDE),
    ):
        super().__init__()
        self.graph = graph
        self.float().eval().requires_grad_(False)
        self.signature = signature
        self.outputs = tuple(outputs)
        self.batched = self._takes_batches(free_size)

    @property
    def input_name(self) -> str:
        """The input's name in the file."""
        return self.signature.input_name

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The input's shape in the file, None where a size is free."""
        return self.signature.input

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
        turned = image.movedim(1, -1) if self.signature.channels_last else image
        result = self.graph.forward(turned)  # called, it prints the trace of any error
        parts = (result,) if isinstance(result, Tensor) else tuple(result)
        return tuple(self.signature.as_batch(part, image.shape[-2:]) for part in parts)

    @torch.no_grad()
    def _takes_batches(self, free_size: tuple[int, int]) -> bool:
        """Whether two images evaluated together give what each gives alone."""
        images = noise(self.signature, free_size)
        try:
            alone = [self._run(image) for image in images.split(1)]
        except CONVERTED as error:
            if self.size is None:
                return False  # it may be particular about its size, which is not known yet
            raise Unusable(f"cannot be run on one image: {one_line(error)}") from error
        try:
            together = self._run(images)
        except CONVERTED:
            return False
        return all(
            _same(joint[i : i + 1], single)
            for i in range(2)
            for joint, single in zip(together, alone[i], strict=True)
        )


def load_onnx(
    path: str | Path,
    outputs: Sequence[str] = (),
    free_size: tuple[int, int] = (FREE_SIDE, FREE_SIDE),
) -> OnnxModule:
    """Read an ONNX file with one image input as a frozen differentiable module.

    What it computes is compared with onnxruntime, where that is installed.

    Args:
        path: the file; external weights are read only from its own folder or below.
        outputs: tensors to return, by name, inside the network too; none: the file's own.
        free_size: height and width of the images that a network of free size will see.

    Raises:
        ValueError: onnx2torch is not installed, the file is no ONNX file, it has not exactly one
            image input, a tensor does not exist, weights lie outside the file's folder,
            operators have no differentiable counterpart (the message lists all of them), or the
            converted network computes something else than the file.
    """
    path = Path(path)
    needed("onnx2torch")
    # Ordinary weights, whatever mode the caller is in.
    with torch.inference_mode(False):
        model, signature, outputs = _opened(path, outputs)
        try:
            file = OnnxReference(model, signature, free_size)
            graph = converted(model, signature.shape_for(free_size))
            module = OnnxModule(graph, signature, outputs, free_size)
            del model
            file.compare(module, lambda: _opened(path, outputs)[0], path.name)
        except Unusable as error:
            raise ValueError(f"{path.name} {error}") from error
        except Exception as error:  # of foreign graphs, in the packages that read them
            raise _not_converted(path, error) from error
    return module


def _opened(path: Path, outputs: Sequence[str]) -> tuple:
    """The model in single precision that returns the outputs, its signature, the outputs' names."""
    model = read_model(path)
    signature = OnnxSignature.of(model.graph)
    signature.check_image(path.name)
    outputs = tuple(outputs) or tuple(signature.outputs)
    try:
        model = plain(model)
        keep_outputs(model, outputs)
        to_float32(model)
    except Unusable as error:
        raise ValueError(f"{path.name} {error}") from error
    except Exception as error:  # as above
        raise _not_converted(path, error) from error
    return model, signature, outputs


def _not_converted(path: Path, error: Exception) -> ValueError:
    """What to say where another package gave up: that the file is damaged, if it is."""
    onnx = needed("onnx")
    try:
        onnx.checker.check_model(str(path))
    except Exception as damage:  # of the C++ code
        return ValueError(f"{path.name} is damaged: export it again\n({one_line(damage)})")
    return ValueError(
        f"{path.name} cannot be converted to PyTorch: use another export of the network\n"
        f"({type(error).__name__}: {one_line(error)})"
    )


def _same(joint: Tensor, single: Tensor) -> bool:
    if joint.shape != single.shape or not single.numel():
        return joint.shape == single.shape
    if not joint.is_floating_point():
        return torch.equal(joint, single)
    return bool(((joint - single).abs() <= SAME * single.abs().max()).all())
