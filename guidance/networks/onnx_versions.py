"""Operators of ONNX in the versions that onnx2torch reads.

onnx2torch 1.5 knows nearly every operator in the versions 13 to 17. PyTorch writes 18 and later
today, and networks of some years ago are older.
"""

from ..optional_packages import needed

__all__ = ["in_known_versions", "set_items", "version_of", "with_functions_inlined"]

# The span of operator versions in which onnx2torch knows (nearly) every operator.
OLDEST, NEWEST = 13, 17

# Functions may be made of functions; the standard has none that is deeper.
DEEPEST_FUNCTION = 4


def with_functions_inlined(model):
    """The same network without operators that onnx2torch does not know and the standard defines by
    others.
    """
    for _ in range(DEEPEST_FUNCTION):
        functions = {
            (node.domain, node.op_type)
            for node in model.graph.node
            if not _has_converter(model, node) and _is_function(model, node)
        }
        if not functions:
            break
        try:
            model = needed("onnx.inliner", "onnx").inline_selected_functions(
                _with_types(model), sorted(functions), exclude=False, inline_schema_functions=True
            )
        except Exception:  # of the C++ code: the operators are reported then
            break
        del model.graph.value_info[:]
    return model


def in_known_versions(model):
    """The same network in operators that onnx2torch has converters for.

    Raises:
        ValueError: operators have none; the message lists all of them.
    """
    version = version_of(model)
    unknown = _lower(model) | _unknown_operators(model)
    if unknown and version < OLDEST:
        model = _lifted(model)
        unknown = _unknown_operators(model)
    if unknown:
        raise ValueError(
            f"cannot be differentiated: onnx2torch has no PyTorch counterpart for "
            f"{', '.join(sorted(unknown))}; use a network without these operators, or export it "
            "again without its post-processing"
        )
    return model


def version_of(model, domain: str = "") -> int:
    """The version of the standard operators, or of another domain's."""
    return next((entry.version for entry in model.opset_import if entry.domain == domain), 1)


def set_items(field, values) -> None:
    """Let a repeated field of a message hold ``values``."""
    values = list(values)
    del field[:]
    field.extend(values)


def _with_types(model):
    """With the types of all tensors: what some functions are made of depends on them."""
    onnx = needed("onnx")
    typed = onnx.shape_inference.infer_shapes(model)
    for tensor in typed.graph.initializer:
        value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        typed.graph.value_info.append(value)
    return typed


def _is_function(model, node) -> bool:
    schema = _schema(node, version_of(model, node.domain))
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def _lower(model) -> set[str]:
    """Write operators newer than NEWEST as those of NEWEST, where they mean the same there.

    An operator does if what its newer versions added is not used: inputs are absent, attributes
    are at their defaults. Two additions are moves, and are moved back.

    Returns:
        The operators that cannot be written so, with their versions.
    """
    version = version_of(model)
    if version <= NEWEST:
        return set()
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    unknown = set()
    for node in model.graph.node:
        if node.domain:
            continue
        old, new = _schema(node, NEWEST), _schema(node, version)
        if old is None or new is None:
            unknown.add(_named(model, node))
            continue
        _move_back(node, constants)
        kept = [a for a in node.attribute if a.name in old.attributes or not _is_default(a, new)]
        set_items(node.attribute, kept)
        if len(node.input) > old.max_input or any(a.name not in old.attributes for a in kept):
            unknown.add(_named(model, node))
    for entry in model.opset_import:
        if not entry.domain:
            entry.version = NEWEST
    return unknown


def _move_back(node, constants: dict) -> None:
    """The axes of a reduction, an input since version 18; the number of a Split's outputs, which
    are counted anyway.
    """
    onnx = needed("onnx")
    if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum" and len(node.input) == 2:
        axes = constants.get(node.input[1])
        if axes is not None:
            values = onnx.numpy_helper.to_array(axes).tolist()
            kind = onnx.AttributeProto.INTS
            set_items(node.input, node.input[:1])
            node.attribute.append(onnx.helper.make_attribute("axes", values, attr_type=kind))
    if node.op_type == "Split":
        set_items(node.attribute, [a for a in node.attribute if a.name != "num_outputs"])


def _is_default(attribute, schema) -> bool:
    value = needed("onnx").helper.get_attribute_value
    known = schema.attributes.get(attribute.name)
    return known is not None and value(attribute) == value(known.default_value)


def _lifted(model):
    """The model in operator version OLDEST, or as it is where that fails."""
    try:
        return needed("onnx").version_converter.convert_version(model, OLDEST)
    except Exception:  # the C++ converter raises what it likes; the operators are reported then
        return model


def _unknown_operators(model) -> set[str]:
    """Operators that onnx2torch has no converter for, such as ``Slice (operator set 1)``."""
    return {_named(model, node) for node in model.graph.node if not _has_converter(model, node)}


def _has_converter(model, node) -> bool:
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


def _named(model, node) -> str:
    domain = f"{node.domain}." if node.domain else ""
    return f"{domain}{node.op_type} (operator set {version_of(model, node.domain)})"


def _schema(node, version: int):
    """What the standard says of the operator in this version, None if nothing."""
    definitions = needed("onnx").defs
    try:
        return definitions.get_schema(node.op_type, version, node.domain)
    except definitions.SchemaError:
        return None
