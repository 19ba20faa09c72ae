"""Protocol buffers, the format of ONNX files: walked without reading them whole, changed.

https://protobuf.dev/programming-guides/encoding
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["GRAPH_OF_MODEL", "fields", "is_cut_model", "set_items"]

# The number of the graph among a model's fields (onnx.proto3).
GRAPH_OF_MODEL = 7

# How every writer begins a model: with the version of the format.
FIRST_BYTE = b"\x08"

# Wire types.
VARINT, EIGHT_BYTES, LENGTH_DELIMITED, FOUR_BYTES = 0, 1, 2, 5


def is_cut_model(path: Path) -> bool:
    """Whether a file begins as an ONNX model whose graph is longer than the file."""
    number = None
    with path.open("rb") as file:
        if file.read(1) != FIRST_BYTE:
            return False
        try:
            for number, *_ in fields(file, 0, path.stat().st_size):
                if number == GRAPH_OF_MODEL:
                    return False
        except EOFError:
            return True
        except ValueError:
            return False
    return False


def fields(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, begin, begin of the content and end of every field between two places of a file.

    Raises:
        ValueError: it is no protocol buffer.
        EOFError: it ends within a field.
    """
    place = start
    while place < end:
        file.seek(place)
        key = _varint(file)
        wire = key & 7
        length = _varint(file) if wire == LENGTH_DELIMITED else 0
        content = file.tell()
        if wire == VARINT:
            _varint(file)
            stop = file.tell()
        elif wire in (LENGTH_DELIMITED, EIGHT_BYTES, FOUR_BYTES):
            stop = content + {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(wire, length)
        else:
            raise ValueError("not a protocol buffer")
        if stop > end:
            raise EOFError("it ends too early")
        yield key >> 3, place, content, stop
        place = stop


def _varint(file: BinaryIO) -> int:
    """A whole number of variable length: seven bits a byte, the last one below 128."""
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise EOFError("it ends too early")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
        shift += 7


def set_items(field: Any, values: Any) -> None:
    """Let a repeated field of a message hold ``values``."""
    values = list(values)
    del field[:]
    field.extend(values)
