"""Operators of ONNX in the versions that onnx2torch reads.

onnx2torch 1.5 knows nearly every operator in the versions 13 to 17. PyTorch writes 18 and later
today, and networks of some years ago are older.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ..optional_packages import needed
from .onnx_checks import Unusable
from .protocol_buffers import set_items

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto

__all__ = [
    "lifted",
    "lowered",
    "refuse_nested",
    "schema_of",
    "unknown_operators",
    "version_of",
    "with_functions_inlined",
]

# The span of operator versions in which onnx2torch knows (nearly) every operator.
OLDEST, NEWEST = 13, 17

# Functions may be made of functions; the standard has none that is deeper.
DEEPEST_FUNCTION = 4


def with_functions_inlined(model: "ModelProto", besides: Collection[str] = ()) -> "ModelProto":
    """The same network without operators that onnx2torch does not know and the standard defines by
    others.

    Args:
        besides: operators that are known though onnx2torch does not know them.
    """
    for _ in range(DEEPEST_FUNCTION):
        chosen = [
            node
            for node in model.graph.node
            if not _has_converter(model, node)
            and node.op_type not in besides
            and _is_function(model, node)
        ]
        if not chosen:
            break
        for node in chosen:
            _write_defaults(model, node)
        functions = sorted({(node.domain, node.op_type) for node in chosen})
        try:
            model = needed("onnx.inliner", "onnx").inline_selected_functions(
                _with_types(model), functions, exclude=False, inline_schema_functions=True
            )
        except Exception:  # of the C++ code: the operators are reported then
            break
        del model.graph.value_info[:]
    return model


def lifted(model: "ModelProto", besides: Collection[str] = ()) -> "ModelProto":
    """A model older than OLDEST in that version, if operators have no converter in their own.

    Args:
        besides: operators that need none.
    """
    if version_of(model) >= OLDEST or not unknown_operators(model, besides):
        return model
    try:
        return needed("onnx").version_converter.convert_version(model, OLDEST)
    except Exception:  # the C++ converter raises what it likes; the operators are reported then
        return model


def lowered(model: "ModelProto") -> None:
    """Write operators newer than NEWEST as those of NEWEST, in place.

    Raises:
        Unusable: operators have no converter; the message lists all of them, with what of them
            is not known.
    """
    _refuse(_lower(model) | unknown_operators(model))


def refuse_nested(model: "ModelProto") -> None:
    """Raise Unusable for operators that run graphs inside them, which are not walked through."""
    nested = {
        _named(model, node)
        for node in model.graph.node
        if any(a.HasField("g") or a.graphs for a in node.attribute)
    }
    _refuse(nested)


def _refuse(unknown: Collection[str]) -> None:
    if unknown:
        raise Unusable(
            f"cannot be differentiated: onnx2torch has no PyTorch counterpart for "
            f"{', '.join(sorted(unknown))}; {_advice(unknown)}"
        )


def _advice(unknown: Collection[str]) -> str:
    if any(name.startswith("com.microsoft.") for name in unknown):
        return (
            "use the network as it was before onnxruntime's optimizer, whose operators "
            "'com.microsoft' are"
        )
    return "use a network without these operators, or export it again without its post-processing"


def version_of(model: "ModelProto", domain: str = "") -> int:
    """The version of the standard operators, or of another domain's."""
    return next((entry.version for entry in model.opset_import if entry.domain == domain), 1)


def _with_types(model: "ModelProto") -> "ModelProto":
    """Infer the types of all tensors, on which the bodies of some functions depend."""
    onnx = needed("onnx")
    typed = onnx.shape_inference.infer_shapes(model)
    for tensor in typed.graph.initializer:
        value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        typed.graph.value_info.append(value)
    return typed


def _write_defaults(model: "ModelProto", node: "NodeProto") -> None:
    """Give an operator all its attributes: the body of a function may refer to them."""
    schema = schema_of(node, version_of(model, node.domain))
    present = {attribute.name for attribute in node.attribute}
    for name, known in schema.attributes.items():
        if name not in present and known.default_value.type:
            node.attribute.append(known.default_value)


def _is_function(model: "ModelProto", node: "NodeProto") -> bool:
    schema = schema_of(node, version_of(model, node.domain))
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def _lower(model: "ModelProto") -> set[str]:
    """Write operators newer than NEWEST as those of NEWEST, where they mean the same there.

    An operator does if what its newer versions added is not used: inputs are absent, attributes
    are at their defaults.

    Returns:
        The operators that cannot be written so, with their versions.
    """
    version = version_of(model)
    if version <= NEWEST:
        return set()
    unknown = set()
    for node in model.graph.node:
        if node.domain:
            continue
        old, new = schema_of(node, NEWEST), schema_of(node, version)
        if old is None or new is None:
            unknown.add(_named(model, node))
            continue
        kept = [a for a in node.attribute if a.name in old.attributes or not _is_default(a, new)]
        set_items(node.attribute, kept)
        added = [a.name for a in kept if a.name not in old.attributes]
        if len(node.input) > old.max_input or added:
            unknown.add(_named(model, node) + (f" with '{added[0]}'" if added else ""))
    for entry in model.opset_import:
        if not entry.domain:
            entry.version = NEWEST
    return unknown


def _is_default(attribute: "AttributeProto", schema: Any) -> bool:
    value = needed("onnx").helper.get_attribute_value
    known = schema.attributes.get(attribute.name)
    return known is not None and value(attribute) == value(known.default_value)


def unknown_operators(model: "ModelProto", besides: Collection[str] = ()) -> set[str]:
    """Operators that onnx2torch has no converter for, such as ``Slice (operator set 1)``."""
    return {
        _named(model, node)
        for node in model.graph.node
        if not _has_converter(model, node) and (node.domain or node.op_type not in besides)
    }


def _has_converter(model: "ModelProto", node: "NodeProto") -> bool:
    """Whether onnx2torch knows the operator, in the newest version that it reads at all."""
    converters = needed("onnx2torch.node_converters", "onnx2torch")
    version = version_of(model, node.domain)
    if not node.domain:
        version = min(version, NEWEST)
    try:
        converters.get_converter(node.op_type, version, node.domain)
    except NotImplementedError:
        return False
    return True


def _named(model: "ModelProto", node: "NodeProto") -> str:
    domain = f"{node.domain}." if node.domain else ""
    return f"{domain}{node.op_type} (operator set {version_of(model, node.domain)})"


def schema_of(node: "NodeProto", version: int) -> Any:
    """What the standard says of the operator in this version, None if nothing."""
    definitions = needed("onnx").defs
    try:
        return definitions.get_schema(node.op_type, version, node.domain)
    except definitions.SchemaError:
        return None
