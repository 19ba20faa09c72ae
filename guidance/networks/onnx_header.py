"""What an ONNX file says about itself, without its weights: inputs, outputs and operators.

A pack of face networks is hundreds of megabytes of which a few kilobytes tell what each file is.
The file is a protocol buffer: its fields are walked, and the weights skipped.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..optional_packages import needed
from .onnx_file import OnnxSignature, shape_of, signature_of, unreadable
from .protocol_buffers import GRAPH_OF_MODEL, fields

__all__ = ["OnnxHeader", "normalises", "read_onnx_header"]

# Numbers of fields in ONNX's own definition (onnx.proto3).
CONSTANT_OF_GRAPH, NAME_OF_CONSTANT = 5, 8


@dataclass(frozen=True)
class OnnxHeader:
    """A network's signature.

    Attributes:
        inputs: name to shape of every input that is no weight, None where a size is free.
        outputs: name to shape.
        normalises: the network scales its input itself: its first operators subtract and
            multiply.
    """

    inputs: dict[str, tuple[int | None, ...]]
    outputs: dict[str, tuple[int | None, ...]]
    normalises: bool

    @property
    def input(self) -> tuple[int | None, ...]:
        """Shape of the only input, empty if there are several."""
        return next(iter(self.inputs.values())) if len(self.inputs) == 1 else ()

    @property
    def output(self) -> tuple[int | None, ...]:
        """Shape of the only output, empty if there are several."""
        return next(iter(self.outputs.values())) if len(self.outputs) == 1 else ()

    def signature(self, name: str) -> OnnxSignature:
        """What it says of its image input.

        Args:
            name: the file's, for messages.

        Raises:
            ValueError: it has not exactly one image input.
        """
        return signature_of(self.inputs, self.outputs, name)

    def __str__(self) -> str:
        return f"{_described(self.inputs)} to {_described(self.outputs)}"


def read_onnx_header(path: str | Path) -> OnnxHeader:
    """Read the signature of an ONNX file.

    Raises:
        ValueError: the onnx package is not installed, or the file is no ONNX file.
    """
    graph_proto = needed("onnx").GraphProto
    path = Path(path)
    try:
        with path.open("rb") as file:
            graph, constants = _graph_without_constants(file, path.stat().st_size)
        graph = graph_proto.FromString(graph)
    except Exception as error:  # a random file makes the protocol buffers fail in many ways
        raise unreadable(path, error) from error
    inputs = {value.name: shape_of(value) for value in graph.input if value.name not in constants}
    outputs = {value.name: shape_of(value) for value in graph.output}
    if not inputs or not outputs:
        raise unreadable(path, "it has no input and output")
    return OnnxHeader(inputs, outputs, normalises(graph, next(iter(inputs))))


def _graph_without_constants(file: BinaryIO, size: int) -> tuple[bytes, set[str]]:
    """The graph's bytes without its weights, and the names of the weights."""
    kept, constants = bytearray(), set()
    for number, _, start, end in fields(file, 0, size):
        if number != GRAPH_OF_MODEL:
            continue
        for inner, begin, content, stop in fields(file, start, end):
            if inner == CONSTANT_OF_GRAPH:
                constants |= {
                    _bytes(file, first, last).decode()
                    for field, _, first, last in fields(file, content, stop)
                    if field == NAME_OF_CONSTANT
                }
            else:
                kept += _bytes(file, begin, stop)
    return bytes(kept), constants


def _bytes(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def normalises(graph, input_name: str) -> bool:
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


def _described(tensors: dict[str, tuple[int | None, ...]]) -> str:
    if len(tensors) > 1:
        return f"{len(tensors)} tensors"
    return " ".join(
        f"[{', '.join('?' if side is None else str(side) for side in shape)}]"
        for shape in tensors.values()
    )
