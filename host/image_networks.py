"""Segmenters and other networks of pictures from ONNX files: they are found, loaded and tested."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..guidance.energies.network_output import face_view, features_first
from ..guidance.faces.crops import Faces
from ..guidance.networks import OnnxSignature, load_onnx
from ..guidance.networks.onnx_header import read_onnx_header
from ..guidance.optional_packages import needed
from ..guidance.pictures.preprocessing import Preprocessing
from ..guidance.wording import one_line
from .gradients import differentiable
from .model_files import ModelKind, Source
from .networks import Network, shared

__all__ = [
    "IMAGENET",
    "NETWORKS",
    "NETWORK_SOURCE",
    "SEGMENTERS",
    "SEGMENTER_SOURCE",
    "USUAL_SEGMENTER",
    "ImageNetwork",
    "InputOptions",
    "example",
    "load_network",
    "outputs_for",
    "with_output",
]

SEGMENTERS = ModelKind("segmenter", ("onnx", "insightface", "detection"), (".onnx",))
NETWORKS = ModelKind("network", ("onnx", "insightface", "detection", "classifiers"), (".onnx",))

# The name under which the face parser's weights should be kept: the release calls them
# resnet18.onnx, which says nothing in a folder of many networks.
USUAL_SEGMENTER = "face_parsing_resnet18.onnx"

SEGMENTER_SOURCE = Source(
    "resnet18.onnx of https://github.com/yakhyo/face-parsing/releases, a face parser of 19 "
    f"classes, to be renamed {USUAL_SEGMENTER}",
    "53 MB",
    "MIT; trained on CelebAMask-HQ, whose pictures are for non-commercial research only",
    name=USUAL_SEGMENTER,
)
NETWORK_SOURCE = Source(
    "any ONNX file with one image input",
    "of any size",
    "its own",
)

# Mean and standard deviation of ImageNet's colors for pixel values of 0 to 255, which torchvision
# publishes as 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225 of 1.
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))

# After them a network has features in the sense of style transfer: conv1_1 of a VGG is its first.
ACTIVATIONS = ("Relu", "LeakyRelu", "PRelu")

# At which a network of free size is tried, where nobody says at which it will be used.
FREE_SIZE = (128, 128)


@dataclass(frozen=True)
class ImageNetwork:
    """A network from an ONNX file with its preprocessing, called with pictures in [0, 1].

    Args:
        path: the ONNX file.
        preprocessing: the way from a picture in [0, 1] to the network's input.
        outputs: the tensors to return, by name; none: the file's own outputs.

    Raises:
        ValueError: see ``load_onnx``.
    """

    path: Path
    preprocessing: Preprocessing
    outputs: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "network", self._load())

    def _load(self) -> Network:
        signature = read_onnx_header(self.path)
        signature.check_image(self.path.name)
        size = signature.size or self.preprocessing.size or FREE_SIZE
        return shared(
            "onnx",
            self.path,
            (self.outputs, size),
            lambda: Network(load_onnx(self.path, self.outputs, size), self.path.name),
        )

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs for ``image [B, 3, H, W]`` RGB in [0, 1], each ``[B, ...]``."""
        return self.network(self.preprocessing(image))

    @property
    def networks(self) -> tuple[Network, ...]:
        """The network it runs on; see the Energy protocol."""
        return (self.network,)

    @property
    def module(self):
        """The OnnxModule, which has the file's input shape and names of outputs."""
        return self.network.module

    def returning(self, outputs: Sequence[str]) -> "ImageNetwork":
        """Return the same network with other outputs, by name, inside the network too."""
        return ImageNetwork(self.path, self.preprocessing, tuple(outputs))

    def activations(self) -> tuple[str, ...]:
        """List the tensors after each activation, by name, in the file's order, for ``returning``.

        Raises:
            ValueError: the onnx package is missing.
        """
        nodes = needed("onnx").load(str(self.path), load_external_data=False).graph.node
        return tuple(node.output[0] for node in nodes if node.op_type in ACTIVATIONS)


@dataclass(frozen=True)
class InputOptions:
    """How a network wants its pictures.

    Args:
        mean, std: what is subtracted from pixel values of 0 to 255, and what they are divided by:
            one number or one for each channel.
        color_order: the order of the colors, "rgb" or "bgr"; a network of one channel sees gray.
        size: the side of the square input in pixels; 0: the network's own.
        free_size: the side for a network that takes any size, when ``size`` is 0.
        fit: how pictures of another shape are fitted, "stretch" or "crop", see Preprocessing.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    color_order: str = "rgb"
    size: int = 0
    free_size: int = 224
    fit: str = "stretch"


def load_network(path: Path, options: InputOptions, output: str | None = None) -> ImageNetwork:
    """Load an ONNX file as a network of pictures.

    Args:
        path: the ONNX file.
        options: how the network wants its pictures.
        output: the only tensor to return, by name or number, the first one for an empty text;
            None: all outputs of the file.

    Raises:
        ValueError: the file cannot be used, or has no such output or size.
    """
    needed("onnx2torch")  # which brings whatever else is needed
    signature = read_onnx_header(path)
    signature.check_image(path.name)
    outputs = () if output is None else (_output_name(output, tuple(signature.outputs)),)
    return ImageNetwork(path, _preprocessing(signature, path.name, options), outputs)


def _output_name(text: str, outputs: Sequence[str]) -> str:
    """The tensor that a text means: an output's name or place counted from 0, the first for none.

    Any other text is the name of a tensor inside the network: PyTorch has called them by numbers.
    """
    text = text.strip()
    if not text:
        return outputs[0]
    if text in outputs or not text.isdecimal() or int(text) >= len(outputs):
        return text
    return outputs[int(text)]


def with_output(network: ImageNetwork, text: str) -> ImageNetwork:
    """Return the network with the one output that a text means, as in ``load_network``.

    Raises:
        ValueError: there is no tensor of that name.
    """
    name = _output_name(text, network.module.outputs)
    if network.module.outputs == (name,):
        return network  # not a second copy of the same weights
    return network.returning((name,))


def example(network: ImageNetwork) -> tuple[Tensor, ...]:
    """Compute the outputs for a picture of noise, each ``[1, ...]``, outside sampling, once.

    Raises:
        ValueError: the network cannot be run at its size, or an output is not made of its input
            by differentiable operators, or lacks the axis of the batch.
    """
    return network.network.reference(
        lambda noise: _tried(network, noise),
        torch.rand(1, 3, *network.preprocessing.size, generator=torch.Generator().manual_seed(0)),
        key=("example", network.preprocessing),
    )


def outputs_for(
    network: ImageNetwork, pictures: Tensor, faces: Faces | None = None, margin: float = 1.0
) -> Tensor:
    """Compute the first output for pictures, features first, computed outside sampling once.

    Args:
        pictures: the pictures ``[R, 3, h, w]`` RGB in [0, 1].
        faces: the face in each; None: the network sees the whole pictures.
        margin: the side of the face's crop, see FaceOutput.
    """
    preprocessing = network.preprocessing
    if faces is None:
        return network.network.reference(
            lambda x: features_first(network(x)[0]), pictures.float(), key=("output", preprocessing)
        )
    return network.network.reference(
        lambda x, boxes: features_first(
            network.network(face_view(x, faces, preprocessing, margin))[0]
        ),
        pictures.float(),
        faces.boxes,
        key=("output of face", preprocessing, margin),
    )


def _preprocessing(file: OnnxSignature, name: str, options: InputOptions) -> Preprocessing:
    channels = file.channels or 3
    if channels not in (1, 3):
        raise ValueError(f"{name} takes images of {channels} channels, expected 1 or 3")
    if len(options.mean) > channels or len(options.std) > channels:
        raise ValueError(
            f"{name} sees gray pictures: expected a normalization of one number each, got "
            f"mean {_listed(options.mean)} and std {_listed(options.std)}"
        )
    return Preprocessing(
        _size(file, name, options),
        tuple(value / 255.0 for value in options.mean),
        tuple(value / 255.0 for value in options.std),
        "gray" if channels == 1 else options.color_order,
        options.fit,
    )


def _size(file: OnnxSignature, name: str, options: InputOptions) -> tuple[int, int]:
    if file.size is None:
        side = options.size or options.free_size
        return (side, side)
    if options.size and (options.size, options.size) != file.size:
        height, width = file.size
        raise ValueError(
            f"{name} takes images of {width} x {height} pixels only, got size {options.size}; "
            "0 stands for the network's own"
        )
    return file.size


def _tried(network: ImageNetwork, noise: Tensor) -> tuple[Tensor, ...]:
    height, width = network.preprocessing.size
    try:
        # As in sampling: the host has moved the weights to the device in inference mode.
        with differentiable(None, [network.module]):
            outputs = network(noise.requires_grad_())
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"{network.path.name} cannot be run on pictures of {width} x {height} pixels"
            f"\n({one_line(error)})"
        ) from error
    for name, output in zip(network.module.outputs, outputs, strict=True):
        if not output.requires_grad:
            raise ValueError(
                f"output '{name}' of {network.path.name} is not a differentiable function of the "
                "picture; choose a tensor before its last rounding or choice of a maximum"
            )
        if output.shape[:1] != (1,):
            raise ValueError(
                f"output '{name}' of {network.path.name} has the shape {list(output.shape)} for "
                "one picture, expected a first axis of 1"
            )
    return tuple(output.detach() for output in outputs)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
