"""What an ONNX file says about itself: its inputs, its outputs, and the picture that it takes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from onnx import GraphProto, ValueInfoProto

__all__ = ["OnnxSignature", "normalizes"]

# Numbers of channels that an image has: gray, or three colors.
IMAGE_CHANNELS = (1, 3)

# Larger images than any network takes.
LARGEST_SIDE = 8192

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class OnnxSignature:
    """The inputs and outputs of a network.

    What is said of the image input holds for a file that has one, see ``check_image``.

    Attributes:
        inputs: name to shape of every input that is no weight, in the file's order, None where a
            size is free.
        outputs: name to shape, in the file's order.
        normalizes: the network scales its input itself: its first operators subtract and
            multiply.
    """

    inputs: dict[str, Shape]
    outputs: dict[str, Shape]
    normalizes: bool

    @staticmethod
    def of(graph: "GraphProto", constants: Collection[str] = ()) -> "OnnxSignature":
        """The signature of an ``onnx.GraphProto``; ``constants``: inputs that are weights."""
        inputs = {v.name: _shape_of(v) for v in graph.input if v.name not in constants}
        outputs = {value.name: _shape_of(value) for value in graph.output}
        first = next(iter(inputs), None)
        return OnnxSignature(inputs, outputs, first is not None and normalizes(graph, first))

    def __str__(self) -> str:
        return f"{_described(self.inputs)} to {_described(self.outputs)}"

    @property
    def input(self) -> Shape:
        """Shape of the only input, empty if there are several."""
        return next(iter(self.inputs.values())) if len(self.inputs) == 1 else ()

    @property
    def output(self) -> Shape:
        """Shape of the only output, empty if there are several."""
        return next(iter(self.outputs.values())) if len(self.outputs) == 1 else ()

    def check_image(self, name: str) -> None:
        """See that there is one image input.

        Args:
            name: the file's, for messages.

        Raises:
            ValueError: it has not exactly one image input, or one of a size that no network takes.
        """
        if len(self.input) != 4:
            found = ", ".join(f"{key} {list(shape)}" for key, shape in self.inputs.items())
            raise ValueError(
                f"{name} must have one image input [batch, channels, height, width], "
                f"got {found or 'none'}"
            )
        if max(side or 1 for side in self.input) > LARGEST_SIDE:
            raise ValueError(
                f"{name} takes images of the shape {list(self.input)}: use a network with sides of "
                f"at most {LARGEST_SIDE}"
            )

    @property
    def input_name(self) -> str:
        """The name of the image input."""
        return next(iter(self.inputs))

    @property
    def channels_last(self) -> bool:
        """Whether the input is ``[batch, height, width, channels]``, as TensorFlow writes it."""
        _, second, _, last = self.input
        return last in IMAGE_CHANNELS and second not in IMAGE_CHANNELS

    @property
    def channels(self) -> int | None:
        """Channels of the input image, None if free."""
        return self.input[3 if self.channels_last else 1]

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the input image, None if either is free."""
        height, width = self.input[1:3] if self.channels_last else self.input[2:]
        return (height, width) if height and width else None

    def shape_for(self, free_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The shape of the input for one picture, as the file has it.

        Args:
            free_size: height and width, where the file leaves them free.
        """
        height, width = self.size or free_size
        channels = self.channels or 3
        if self.channels_last:
            return (1, height, width, channels)
        return (1, channels, height, width)

    def as_batch(self, output: Tensor, size: Sequence[int]) -> Tensor:
        """An output for an image of ``size``, its channels before its places.

        A file whose input has its channels last may have turned its maps on the way or not: they
        lie where the other two axes have the shape of the image.
        """
        if output.ndim == 0:
            return output[None]
        if not self.channels_last or output.ndim != 4:
            return output
        height, width = size
        _, a, b, c = output.shape
        if abs(a / height - b / width) > abs(b / height - c / width):
            return output
        return output.movedim(-1, 1)


def normalizes(graph: "GraphProto", input_name: str) -> bool:
    """Whether the input passes a subtraction and a multiplication before anything else.

    The networks of face packs that were made with MXNet do so, in two operators or in a batch norm
    called ``bn_data``; the insightface library goes by the names of the first operators.
    """
    users = {name: node for node in reversed(graph.node) for name in node.input}
    passed = set()
    # Taken out: a damaged graph may lead back to where it was.
    node = users.pop(input_name, None)
    while node is not None and node.op_type in ("Sub", "Mul", "Div", "Cast", "Identity"):
        passed.add("Mul" if node.op_type == "Div" else node.op_type)
        node = users.pop(node.output[0], None) if node.output else None
    return {"Sub", "Mul"} <= passed or (node is not None and node.name == "bn_data")


def _shape_of(value: "ValueInfoProto") -> Shape:
    """The shape of an input or output as the file says it, None for a size that is free."""
    sides = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in sides)


def _described(tensors: dict[str, Shape]) -> str:
    if len(tensors) > 1:
        return f"{len(tensors)} tensors"
    return " ".join(
        f"[{', '.join('?' if side is None else str(side) for side in shape)}]"
        for shape in tensors.values()
    )
