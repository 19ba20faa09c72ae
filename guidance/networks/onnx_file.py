"""ONNX files: read without leaving their folder, and brought to single precision."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..optional_packages import needed
from ..wording import one_line
from .file_kinds import mishap
from .onnx_checks import Unusable, check_functions, sort_operators
from .onnx_external import read_external
from .protocol_buffers import is_cut_model, set_items

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["read_model", "to_float32", "unreadable"]

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


def read_model(path: Path) -> "ModelProto":
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


def _check_precision(model: "ModelProto") -> None:
    """Raise Unusable for a network in whole numbers, which has no gradient."""
    bodies = (model.graph, *model.functions)
    found = sorted({n.op_type for body in bodies for n in body.node if n.op_type in QUANTIZED})
    if found:
        raise Unusable(
            "is quantized (8-bit whole numbers), which has no gradient: get the network in float "
            f"precision\n(its operators are {', '.join(found)})"
        )


def to_float32(model: "ModelProto") -> None:
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


def _tensors(*graphs: Any) -> Iterator:
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
