"""ONNX files as attribute networks: found, converted once, loaded by the host, fed pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..guidance.networks import Preprocessing, load_onnx
from ..guidance.networks.onnx_header import read_onnx_header
from ..guidance.optional_packages import needed
from .networks import Network, shared

__all__ = ["ImageNetwork"]

# After them a network has features in the sense of style transfer: conv1_1 of a VGG is its first.
ACTIVATIONS = ("Relu", "LeakyRelu", "PRelu")

# At which a network of free size is tried, where nobody says at which it will be used.
FREE_SIZE = (128, 128)


@dataclass(frozen=True)
class ImageNetwork:
    """A network from an ONNX file with its preprocessing: pictures in, outputs out.

    Args:
        path: the file.
        preprocessing: from a picture in [0, 1] to the network's input.
        outputs: tensors to return, by name; none: the file's own outputs.

    Raises:
        ValueError: see ``load_onnx``.
    """

    path: Path
    preprocessing: Preprocessing
    outputs: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "network", self._load())

    def _load(self) -> Network:
        signature = read_onnx_header(self.path).signature(self.path.name)
        size = signature.size or self.preprocessing.size or FREE_SIZE
        return shared(
            "onnx",
            self.path,
            (self.outputs, size),
            lambda: Network(load_onnx(self.path, self.outputs, size), self.path.name),
        )

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]:
        """The outputs for ``image [B, 3, H, W]`` RGB in [0, 1], each ``[B, ...]``."""
        return self.network(self.preprocessing(image))

    @property
    def module(self):
        """The OnnxModule: the file's input shape and names of outputs."""
        return self.network.module

    def returning(self, outputs: Sequence[str]) -> "ImageNetwork":
        """The same network with other outputs, by name, inside the network too."""
        return ImageNetwork(self.path, self.preprocessing, tuple(outputs))

    def activations(self) -> tuple[str, ...]:
        """Names of the tensors after each activation, in the order of the file, for ``returning``.

        Raises:
            ValueError: the onnx package is missing.
        """
        nodes = needed("onnx").load(str(self.path), load_external_data=False).graph.node
        return tuple(node.output[0] for node in nodes if node.op_type in ACTIVATIONS)
