"""The signature of an ONNX file, read without its weights.

A pack of face networks is hundreds of megabytes of which a few kilobytes tell what each file is.
The file is a protocol buffer: its fields are walked, and the weights skipped.
"""

from pathlib import Path
from typing import BinaryIO

from ..optional_packages import needed
from .onnx_file import unreadable
from .onnx_signature import OnnxSignature
from .protocol_buffers import GRAPH_OF_MODEL, fields

__all__ = ["read_onnx_header"]

# Numbers of fields in ONNX's own definition (onnx.proto3).
CONSTANT_OF_GRAPH, NAME_OF_CONSTANT = 5, 8


def read_onnx_header(path: str | Path) -> OnnxSignature:
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
    signature = OnnxSignature.of(graph, constants)
    if not signature.inputs or not signature.outputs:
        raise unreadable(path, "it has no input and output")
    return signature


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
