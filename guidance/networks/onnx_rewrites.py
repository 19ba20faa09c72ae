"""Operators that onnx2torch does not convert, or converts into another function, as others.

Each rule takes one operator of the standard and returns those that stand for it: others of the
standard where they suffice, else those of ``onnx_operators``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..optional_packages import needed
from .onnx_checks import Unusable
from .onnx_operators import DOMAIN, REDUCTIONS
from .onnx_versions import version_of
from .protocol_buffers import set_items

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["rewritten"]

Constants = Mapping[str, Sequence[int]]  # their shapes by their names
# What a rule gets: the operator, its attributes as Python values, the version of the standard's
# operators, and the shapes of constants.
Rule = Callable[[Any, dict, int, Constants], list]

SAME = ("SAME_UPPER", "SAME_LOWER")


def rewritten(model: "ModelProto") -> None:
    """Write the operators of RULES anew, in place.

    Raises:
        Unusable: an operator has no counterpart.
    """
    version = version_of(model)
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        _drop_absent_inputs(node)
        rule = None if node.domain else RULES.get(node.op_type)
        nodes += [node] if rule is None else rule(node, _attributes(node), version, constants)
    set_items(model.graph.node, nodes)
    _tell_axes_of_padded(model)
    if DOMAIN not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(needed("onnx").helper.make_opsetid(DOMAIN, 1))


def _tell_axes_of_padded(model: "ModelProto") -> None:
    """Pooling operators are converted by the number of axes of what they get."""
    onnx = needed("onnx")
    for node in model.graph.node:
        if node.domain == DOMAIN and node.op_type == "SamePad":
            (kernel,) = (a.ints for a in node.attribute if a.name == "kernel_shape")
            free = [None] * (2 + len(kernel))
            kind = onnx.TensorProto.FLOAT
            value = onnx.helper.make_tensor_value_info(node.output[0], kind, free)
            model.graph.value_info.append(value)


def _drop_absent_inputs(node: "NodeProto") -> None:
    """Inputs that are left out at the end: an empty name means the same as none."""
    while node.input and not node.input[-1]:
        del node.input[-1]


def _attributes(node: "NodeProto") -> dict:
    value = needed("onnx").helper.get_attribute_value
    read = {attribute.name: value(attribute) for attribute in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in read.items()}


def _made(
    operator: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    domain: str = "",
    **attributes: Any,
) -> "NodeProto":
    filled = {k: v for k, v in attributes.items() if not isinstance(v, list) or v}
    name = f"{outputs[0]}/{operator}"
    return needed("onnx").helper.make_node(
        operator, list(inputs), list(outputs), name, domain=domain, **filled
    )


def _without(node: "NodeProto", *names: str) -> None:
    set_items(node.attribute, [a for a in node.attribute if a.name not in names])


def _ours(kind: str) -> Rule:
    """The operator of ours of that name, with the same attributes."""

    def rule(node: "NodeProto", attributes: dict, version: int, constants: Constants) -> list:
        return [_made(kind, node.input, node.output, DOMAIN, **attributes)]

    return rule


def _split(node: "NodeProto", attributes: dict, version: int, constants: Constants) -> list:
    if version < 13:  # the sizes are an attribute
        return [node]
    count, axis = len(node.output), attributes.get("axis", 0)
    return [_made("Split", node.input, node.output, DOMAIN, count=count, axis=axis)]


def _resize(node: "NodeProto", attributes: dict, version: int, constants: Constants) -> list:
    inputs = list(node.input)
    if version < 11:  # before the attributes came there was one meaning
        inputs = [node.input[0], "", *node.input[1:]]
        attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "outwards"}
    return [
        _made(
            "Resize",
            inputs[: 1 if "scales" in attributes else None],
            node.output,
            DOMAIN,
            **attributes,
        )
    ]


def _reduce(node: "NodeProto", attributes: dict, version: int, constants: Constants) -> list:
    kind = node.op_type.removeprefix("Reduce")
    return [_made("Reduce", node.input, node.output, DOMAIN, kind=kind, **attributes)]


def _clip(node: "NodeProto", attributes: dict, version: int, constants: Constants) -> list:
    """Keep a Clip with constant limits, which onnx2torch knows; replace others by Max and Min."""
    if version < 11 or all(name in constants for name in node.input[1:]):
        return [node]
    x, low, high = (*node.input, "", "")[:3]
    result = []
    if low:
        between = f"{node.output[0]}/above" if high else node.output[0]
        result.append(_made("Max", [x, low], [between]))
        x = between
    return [*result, _made("Min", [x, high], node.output)] if high else result


def _cumulative_sum(
    node: "NodeProto", attributes: dict, version: int, constants: Constants
) -> list:
    """onnx2torch takes the wrong direction where none is said."""
    attribute = needed("onnx").helper.make_attribute
    if "reverse" not in attributes:
        node.attribute.append(attribute("reverse", 0))
    return [node]


def _depth_to_space(
    node: "NodeProto", attributes: dict, version: int, constants: Constants
) -> list:
    if attributes.get("mode", "DCR") != "DCR":
        return [node]
    blocksize = attributes["blocksize"]
    return [_made("DepthToSpace", node.input, node.output, DOMAIN, blocksize=blocksize)]


def _windows(attributes: dict, kernel: Sequence[int]) -> dict[str, list[int]]:
    return {
        "kernel_shape": list(kernel),
        "strides": attributes.get("strides", [1] * len(kernel)),
        "dilations": attributes.get("dilations", [1] * len(kernel)),
    }


def _average_pool(node: "NodeProto", attributes: dict, version: int, constants: Constants) -> list:
    windows = _windows(attributes, attributes["kernel_shape"])
    count = len(windows["kernel_shape"])
    pads = attributes.get("pads", [0] * 2 * count)
    auto = attributes.get("auto_pad", "NOTSET")
    if auto == "VALID":
        auto, pads = "NOTSET", [0] * 2 * count
    even = pads[:count] == pads[count:] and set(windows["dilations"]) == {1}
    if auto == "NOTSET" and even and not attributes.get("ceil_mode"):
        return [node]
    kept = {k: attributes[k] for k in ("count_include_pad", "ceil_mode") if k in attributes}
    windows |= {"pads": pads, "auto_pad": auto}
    return [_made("AveragePool", node.input, node.output, DOMAIN, **windows, **kept)]


def _padded_before(value: float) -> Rule:
    """For a window whose padding follows from the size: ``value`` is put around before it."""

    def rule(node: "NodeProto", attributes: dict, version: int, constants: Constants) -> list:
        auto = attributes.get("auto_pad", "NOTSET")
        if len(node.output) > 1:
            raise Unusable(
                f"has a {node.op_type} of which the places are read: choose an output before it"
            )
        if auto not in SAME:
            return [node]
        windows = _windows(attributes, _kernel(node, attributes, constants))
        padded, lower = f"{node.output[0]}/padded", int(auto == "SAME_LOWER")
        pad = _made(
            "SamePad", node.input[:1], [padded], DOMAIN, **windows, lower=lower, value=value
        )
        _without(node, "auto_pad", "pads")
        node.input[0] = padded
        return [pad, node]

    return rule


def _transposed(node: "NodeProto", attributes: dict, version: int, constants: Constants) -> list:
    """The whole of a ConvTranspose, and what is taken from it, where onnx2torch has no such one."""
    windows = _windows(attributes, _kernel(node, attributes, constants))
    count = len(windows["kernel_shape"])
    pads = attributes.get("pads", [0] * 2 * count)
    auto = attributes.get("auto_pad", "NOTSET")
    shape = list(attributes.get("output_shape", []))[-count:]
    if not shape and auto not in SAME and (auto == "VALID" or pads[:count] == pads[count:]):
        return [node]
    full = f"{node.output[0]}/full"
    more = attributes.get("output_padding", [0] * count)
    kept = pads if not shape and auto not in SAME else []
    crop = _made(
        "CropTransposed",
        [full],
        node.output,
        DOMAIN,
        **windows,
        output_padding=more,
        pads=kept,
        output_shape=shape,
        upper=int(auto == "SAME_UPPER"),
    )
    _without(node, "auto_pad", "pads", "output_shape")
    node.output[0] = full
    return [node, crop]


def _kernel(node: "NodeProto", attributes: dict, constants: Constants) -> Sequence[int]:
    """The sides of a window: as said, or as the weights have them."""
    found = attributes.get("kernel_shape") or constants.get(node.input[1], ())[2:]
    if not found:
        raise Unusable(f"has a {node.op_type} whose 'kernel_shape' is not known")
    return found


RULES: dict[str, Rule] = {
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Conv": _padded_before(0.0),
    "ConvTranspose": _transposed,
    "CumSum": _cumulative_sum,
    "DepthToSpace": _depth_to_space,
    "GlobalMaxPool": _ours("GlobalMaxPool"),
    "LpNormalization": _ours("LpNormalization"),
    "MaxPool": _padded_before(float("-inf")),
    "Pad": _ours("Pad"),
    **{f"Reduce{kind}": _reduce for kind in REDUCTIONS},
    "RMSNormalization": _ours("RMSNormalization"),
    "Resize": _resize,
    "Slice": _ours("Slice"),
    "SpaceToDepth": _ours("SpaceToDepth"),
    "Split": _split,
    "Upsample": _resize,
}
