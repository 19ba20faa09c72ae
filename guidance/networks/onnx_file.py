"""ONNX files: read without leaving their folder, described, and brought to single precision."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..optional_packages import needed

__all__ = ["OnnxSignature", "read_model", "signature_of", "to_float32"]

# Numbers of channels that an image has: grey, or three colours.
IMAGE_CHANNELS = (1, 3)


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


def read_model(path: Path):
    """The ``onnx.ModelProto`` of a file with its weights, and without weights among its inputs.

    Raises:
        ValueError: it is no ONNX file, or its weights lie outside its folder or are not there.
    """
    onnx = needed("onnx")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises its own kinds
        raise ValueError(f"{path.name} is not a readable ONNX file ({error})") from error
    if not model.graph.node:
        raise ValueError(f"{path.name} is not a readable ONNX file (it has no operators)")
    _check_external_data(model, path)
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # of many kinds, after the versions of the package
        raise ValueError(f"{path.name}: its external weights cannot be read ({error})") from error
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def signature_of(model, path: Path) -> OnnxSignature:
    """The signature of a model that was read from ``path``.

    Raises:
        ValueError: it has not exactly one image input.
    """
    inputs = model.graph.input
    shapes = [
        tuple(d.dim_value if d.dim_value > 0 else None for d in v.type.tensor_type.shape.dim)
        for v in inputs
    ]
    if len(inputs) != 1 or len(shapes[0]) != 4:
        found = ", ".join(f"{v.name} {list(s)}" for v, s in zip(inputs, shapes, strict=True))
        raise ValueError(
            f"{path.name} must have one image input [batch, channels, height, width], "
            f"got {found or 'none'}"
        )
    return OnnxSignature(inputs[0].name, shapes[0], tuple(v.name for v in model.graph.output))


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


def _check_external_data(model, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in _tensors(model.graph, *model.functions):
        if tensor.data_location != tensor.EXTERNAL:
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        if not (folder / location).resolve().is_relative_to(folder):
            raise ValueError(
                f"{path.name} refers to weights outside its own folder ('{location}') and was not "
                "loaded; put the weights beside the file and export it again"
            )


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
