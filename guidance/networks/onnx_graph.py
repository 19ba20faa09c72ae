"""ONNX graphs rewritten into what onnx2torch converts, without changing what they compute.

onnx2torch wants weights as constants of the graph itself, and numbers of axes that are known;
exporters let weights pass through other operators, and reshape to computed sizes.
"""

import tempfile
import warnings
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..optional_packages import needed
from .onnx_checks import Unusable, check_sizes
from .onnx_operators import register
from .onnx_rewrites import RULES, rewritten
from .onnx_versions import (
    lifted,
    lowered,
    refuse_nested,
    schema_of,
    version_of,
    with_functions_inlined,
)
from .protocol_buffers import set_items

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

__all__ = ["converted", "keep_outputs", "plain"]

# Protocol buffers end at 2 GiB; some room for all that is not weights.
LARGEST_MESSAGE = 2**31 - 2**24

# Constants of more numbers are weights, and no shapes or axes.
LARGEST_SHAPE = 1024


def plain(model: "ModelProto") -> "ModelProto":
    """The model without functions of its own, its operators named by their standard names."""
    if model.functions:  # PyTorch's exporter has written them for a time
        model = needed("onnx.inliner", "onnx").inline_local_functions(model)
    for item in (*model.opset_import, *model.graph.node):
        if item.domain == "ai.onnx":  # the long name of the standard domain
            item.domain = ""
    return model


def keep_outputs(model: "ModelProto", outputs: Sequence[str]) -> None:
    """Return exactly the tensors ``outputs``, each by its own operator, and drop what they do not
    need.

    Raises:
        Unusable: a tensor does not exist.
    """
    onnx = needed("onnx")
    graph = model.graph
    made_by = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    missing = [name for name in outputs if name not in made_by]
    if missing:
        own = ", ".join(value.name for value in graph.output)
        raise Unusable(f"has no tensor named {', '.join(missing)}; its outputs are {own}")
    used, stack = set(), [made_by[name] for name in outputs]
    while stack:
        i = stack.pop()
        if i not in used:
            used.add(i)
            stack.extend(made_by[name] for name in graph.node[i].input if name in made_by)
    nodes = [node for i, node in enumerate(graph.node) if i in used]
    # onnx2torch returns operators, not tensors: a Split would come back as the list of its parts.
    returned = [f"{name}/returned {i}" for i, name in enumerate(outputs)]
    nodes += [
        onnx.helper.make_node("Identity", [name], [copy], name=copy)
        for name, copy in zip(outputs, returned, strict=True)
    ]
    set_items(graph.node, nodes)
    _drop_unread_outputs(model)
    _drop_unread_constants(graph)
    set_items(graph.output, [onnx.ValueInfoProto(name=name) for name in returned])


def converted(model: "ModelProto", image: Sequence[int]) -> nn.Module:
    """The model as a module; a single output comes back as no tuple.

    Args:
        image: the shape of the input that it will be run on.

    Raises:
        Unusable: it makes tensors larger than any network does, operators have no counterpart
            (the message lists all of them), or onnx2torch cannot convert one.
    """
    needed("onnx2torch")
    register()
    # It warns of every Resize, the exact ones too.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"onnx2torch\.")
    refuse_nested(model)
    model = with_functions_inlined(model, RULES)
    _simplify(model)
    model = lifted(model, RULES)
    light = _light(model)
    set_items(model.graph.value_info, _inferred(light))
    _fix_input(light, image)
    check_sizes(_inferred(light))
    rewritten(model)
    lowered(model)
    _simplify(model)  # operators of other versions bring constants of their own
    _free_layer_norms(model)
    try:
        return _by_onnx2torch(model)
    except Exception as error:  # converters raise many kinds
        raise Unusable(
            f"cannot be converted to PyTorch: {_culprit(model)}{error or type(error).__name__}"
        ) from error


def _by_onnx2torch(model: "ModelProto") -> nn.Module:
    convert = needed("onnx2torch").convert
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) < LARGEST_MESSAGE:
        return convert(model)
    with tempfile.TemporaryDirectory() as folder:  # as one message it could not be handed on
        path = Path(folder) / "network.onnx"
        needed("onnx").save_model(model, str(path), save_as_external_data=True, location="weights")
        return convert(path)


def _culprit(model: "ModelProto") -> str:
    """The first operator that its converter refuses, to be put before the reason."""
    converters = needed("onnx2torch.node_converters", "onnx2torch")
    graph = needed("onnx2torch.onnx_graph", "onnx2torch").OnnxGraph(model.graph)
    for node in graph.nodes.values():
        version = version_of(model, node.domain)
        try:
            converters.get_converter(node.operation_type, version, node.domain)(node, graph)
        except Exception:  # converters raise many kinds
            return f"{node.operation_type}: "
    return ""


def _simplify(model: "ModelProto") -> None:
    """Make every constant the graph's own, whatever it passes through.

    - ``Constant`` operators become constants of the graph, ``Identity`` disappears: exporters
      share equal weights through it, and onnx2torch looks for weights among the constants.
    - ``Reshape(allowzero=1)``, which PyTorch writes always, differs from the plain one only for
      shapes with a 0.
    """
    onnx = needed("onnx")
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    returned = {value.name for value in graph.output}
    alias: dict[str, str] = {}
    nodes, added = [], []
    for node in graph.node:
        set_items(node.input, [alias.get(name, name) for name in node.input])
        constant = _constant_value(onnx, node) if node.op_type == "Constant" else None
        if constant is not None:
            constants[constant.name] = constant
            added.append(constant)
        elif node.op_type == "Identity" and node.output[0] not in returned:
            alias[node.output[0]] = node.input[0]
        else:
            if node.op_type == "Reshape" and node.input[1] in constants:
                _drop_allowzero(node, onnx.numpy_helper.to_array(constants[node.input[1]]))
            nodes.append(node)
    set_items(graph.node, nodes)
    graph.initializer.extend(added)
    _drop_unread_constants(graph)


def _drop_unread_outputs(model: "ModelProto") -> None:
    """Let operators return what is read: of a MaxPool the places of its values rarely are."""
    read = {name for node in model.graph.node for name in node.input}
    for node in model.graph.node:
        schema = schema_of(node, version_of(model, node.domain))
        while schema is not None and len(node.output) > max(schema.min_output, 1):
            last = schema.outputs[min(len(node.output), len(schema.outputs)) - 1]
            if last.option.name != "Optional" or node.output[-1] in read:
                break
            del node.output[-1]


def _drop_unread_constants(graph: "GraphProto") -> None:
    read = {name for node in graph.node for name in node.input}
    for i in reversed(range(len(graph.initializer))):  # in place: a copy may be gigabytes
        if graph.initializer[i].name not in read:
            del graph.initializer[i]


def _constant_value(onnx: Any, node: "NodeProto") -> Any:
    """The tensor of a Constant operator, None for kinds that no image network has."""
    (attribute,) = node.attribute
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = node.output[0]
        return tensor
    kinds = {
        "value_float": (onnx.TensorProto.FLOAT, [], [attribute.f]),
        "value_floats": (onnx.TensorProto.FLOAT, [len(attribute.floats)], attribute.floats),
        "value_int": (onnx.TensorProto.INT64, [], [attribute.i]),
        "value_ints": (onnx.TensorProto.INT64, [len(attribute.ints)], attribute.ints),
    }
    if attribute.name not in kinds:
        return None
    return onnx.helper.make_tensor(node.output[0], *kinds[attribute.name])


def _drop_allowzero(reshape: "NodeProto", shape: Any) -> None:
    if (shape != 0).all():
        set_items(reshape.attribute, [a for a in reshape.attribute if a.name != "allowzero"])


def _inferred(model: "ModelProto") -> list:
    """Shapes of the tensors between operators: several converters ask for the number of axes.

    The inference gives up at a Reshape to a computed shape, though the number of axes is that
    shape's length; it goes on from there once it is told so.
    """
    onnx = needed("onnx")
    told: set[str] = set()
    while True:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        axes = _axes_of_reshapes(model, told)
        if not axes:
            return list(model.graph.value_info)
        known = [value for value in model.graph.value_info if value.name not in axes]
        set_items(model.graph.value_info, known)
        for name, count in axes.items():
            kind = onnx.TensorProto.FLOAT
            value = onnx.helper.make_tensor_value_info(name, kind, [None] * count)
            model.graph.value_info.append(value)
        told |= axes.keys()


def _fix_input(model: "ModelProto", shape: Sequence[int]) -> None:
    for dim, side in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = side


def _light(model: "ModelProto") -> "ModelProto":
    """The model without the numbers of large constants, of which only the shapes count."""
    onnx = needed("onnx")
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = model.graph
    light.graph.name = graph.name
    for name in ("node", "input", "output", "value_info"):
        getattr(light.graph, name).extend(getattr(graph, name))
    for tensor in graph.initializer:
        light.graph.initializer.append(
            tensor
            if prod(tensor.dims) <= LARGEST_SHAPE
            else onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        )
    return light


def _axes_of_reshapes(model: "ModelProto", told: set[str]) -> dict[str, int]:
    """Numbers of axes of the reshaped floating point tensors of which nothing is known."""
    float_kind = needed("onnx").TensorProto.FLOAT
    types = {value.name: value.type.tensor_type for value in model.graph.value_info}
    result = {}
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.output[0] in told:
            continue
        output, shape = types.get(node.output[0]), types.get(node.input[1])
        unknown = output is not None and output.elem_type == float_kind and not output.shape.dim
        if unknown and shape is not None and len(shape.shape.dim) == 1:
            count = shape.shape.dim[0].dim_value
            if count > 0:
                result[node.output[0]] = count
    return result


def _free_layer_norms(model: "ModelProto") -> None:
    """Let layer norms of unknown size take it from what arrives.

    onnx2torch fixes the size, unless the weights are the outputs of operators.
    """
    onnx = needed("onnx")
    types = {value.name: value.type.tensor_type for value in model.graph.value_info}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "LayerNormalization" and node.input[0] in types:
            axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
            sizes = [dim.dim_value for dim in types[node.input[0]].shape.dim][axis:]
            if not sizes or 0 in sizes:
                for i, name in enumerate(node.input[1:], start=1):
                    passed = f"{node.output[0]}/weight {i}"
                    nodes.append(onnx.helper.make_node("Identity", [name], [passed], name=passed))
                    node.input[i] = passed
        nodes.append(node)
    set_items(model.graph.node, nodes)
