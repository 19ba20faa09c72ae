"""ONNX files: read without leaving their folder, described, and brought to single precision."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..optional_packages import needed
from ..wording import one_line
from .file_kinds import mishap
from .onnx_checks import Unusable, check_functions, sort_operators
from .onnx_external import read_external
from .protocol_buffers import is_cut_model, set_items

__all__ = ["OnnxSignature", "read_model", "shape_of", "signature_of", "to_float32", "unreadable"]

# Numbers of channels that an image has: grey, or three colours.
IMAGE_CHANNELS = (1, 3)

# Larger images than any network takes.
LARGEST_SIDE = 8192

# The operators of quantized networks.
QUANTIZED = {
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
    *("QGemm", "QLinearAdd", "QLinearGlobalAveragePool", "QAttention"),  # onnxruntime's own
    *("MatMulNBits", "DynamicQuantizeMatMul"),
}


@dataclass(frozen=True)
class OnnxSignature:
    """What a file says about its image input and its outputs.

    Attributes:
        input_name: of the image input.
        input_shape: as written in the file, None for a size that is free.
        outputs: names, in the file's order.
    """

    input_name: str
    input_shape: tuple[int | None, int | None, int | None, int | None]
    outputs: tuple[str, ...]

    @property
    def channels_last(self) -> bool:
        """Whether the input is ``[batch, height, width, channels]``, as TensorFlow writes it."""
        _, second, _, last = self.input_shape
        return last in IMAGE_CHANNELS and second not in IMAGE_CHANNELS

    @property
    def channels(self) -> int | None:
        """Channels of the input image, None if free."""
        return self.input_shape[3 if self.channels_last else 1]

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the input image, None if either is free."""
        height, width = self.input_shape[1:3] if self.channels_last else self.input_shape[2:]
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


def read_model(path: Path):
    """The ``onnx.ModelProto`` of a file with its weights, and without weights among its inputs.

    Its operators are sorted, and its own functions end.

    Raises:
        ValueError: it is no ONNX file, or a damaged one, a quantized one, or its weights lie
            outside its folder or are not there.
    """
    onnx = needed("onnx")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises its own kinds
        raise unreadable(path, error) from error
    if not model.graph.node:
        raise unreadable(path, "it has no operators")
    try:
        check_functions(model)
        sort_operators(model)
        _check_precision(model)
    except Unusable as error:
        raise ValueError(f"{path.name} {error}") from error
    read_external(_tensors(model.graph, *model.functions), path)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    set_items(model.graph.input, inputs)
    return model


def unreadable(path: Path, reason: object) -> ValueError:
    """What to say of a file that is no ONNX file, or not one that can be read."""
    known = mishap(path)
    if known is None and is_cut_model(path):
        known = "a download that was cut: download it again"
    said = f" but {known}" if known else f": download it again\n({one_line(reason)})"
    return ValueError(f"{path.name} is not a readable ONNX file{said}")


def _check_precision(model) -> None:
    """Raise Unusable for a network in whole numbers, which has no gradient."""
    bodies = (model.graph, *model.functions)
    found = sorted({n.op_type for body in bodies for n in body.node if n.op_type in QUANTIZED})
    if found:
        raise Unusable(
            "is quantized (8-bit whole numbers), which has no gradient: get the network in float "
            f"precision\n(its operators are {', '.join(found)})"
        )


def signature_of(
    inputs: Mapping[str, Sequence[int | None]], outputs: Iterable[str], name: str
) -> OnnxSignature:
    """The signature of a file.

    Args:
        inputs: shapes of all inputs that are no weights, None for a size that is free.
        outputs: their names.
        name: the file's, for messages.

    Raises:
        ValueError: it has not exactly one image input, or one of a size that no network takes.
    """
    shapes = list(inputs.values())
    if len(shapes) != 1 or len(shapes[0]) != 4:
        found = ", ".join(f"{key} {list(shape)}" for key, shape in inputs.items())
        raise ValueError(
            f"{name} must have one image input [batch, channels, height, width], "
            f"got {found or 'none'}"
        )
    if max(side or 1 for side in shapes[0]) > LARGEST_SIDE:
        raise ValueError(
            f"{name} takes images of the shape {list(shapes[0])}: use a network with sides of at "
            f"most {LARGEST_SIDE}"
        )
    return OnnxSignature(next(iter(inputs)), tuple(shapes[0]), tuple(outputs))


def shape_of(value) -> tuple[int | None, ...]:
    """The shape of an input or output as the file says it, None for a size that is free."""
    sides = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in sides)


def to_float32(model) -> None:
    """Let a file in half, brain or double precision compute in single: for every device's
    operators, and for the gradients.
    """
    onnx = needed("onnx")
    kinds = onnx.TensorProto
    others = (kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE)
    for tensor in _tensors(model.graph):
        if tensor.data_type in others:
            array = onnx.numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i in others:
                attribute.i = kinds.FLOAT
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.tensor_type.elem_type in others:
            value.type.tensor_type.elem_type = kinds.FLOAT
    del model.graph.value_info[:]  # types and shapes are inferred again


def _tensors(*graphs) -> Iterator:
    """Every constant of graphs or functions, and of the graphs inside their operators."""
    for graph in graphs:
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from ([attribute.t] if attribute.HasField("t") else attribute.tensors)
                yield from _tensors(
                    *([attribute.g] if attribute.HasField("g") else attribute.graphs)
                )
