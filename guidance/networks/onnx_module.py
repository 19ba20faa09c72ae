"""ONNX files as differentiable PyTorch modules, by onnx2torch.

What onnx2torch leaves open is settled here: exports whose batch size is fixed, files in half
precision, outputs in the middle of a network, weights in other files, and one message for all
operators it does not know.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..optional_packages import needed

__all__ = ["OnnxModule", "load_onnx"]

# Operator versions onnx2torch knows best; older files are lifted to it when something is unknown.
OPSET = 13

# Largest relative difference between two images judged together and one by one, in float32, that
# counts as rounding.
SAME = 1e-3


@dataclass(frozen=True)
class _Signature:
    """What the file says about its tensors; None stands for a size that is free."""

    input_name: str
    input_shape: tuple[int | None, ...]
    outputs: tuple[str, ...]


class OnnxModule(nn.Module):
    """A frozen network ``image [B, C, h, w] -> tuple of outputs [B, ...]`` in float32.

    Attributes:
        input_shape: of the file, None where a size is free.
        outputs: names of the outputs, in the order in which they are returned.
    """

    def __init__(self, graph: nn.Module, signature: _Signature):
        super().__init__()
        self.graph = graph.float().eval().requires_grad_(False)
        self.input_name = signature.input_name
        self.input_shape = signature.input_shape
        self.outputs = signature.outputs
        self.batched = self._takes_batches()

    @property
    def channels(self) -> int | None:
        """Channels of the input image, None if free."""
        return self.input_shape[1]

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the input image, None if either is free."""
        height, width = self.input_shape[2:]
        return (height, width) if height and width else None

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if self.batched or image.shape[0] == 1:
            return self._run(image)
        # The file was exported for one image (a Reshape to [1, ...], say): one by one.
        singles = [self._run(single) for single in image.split(1)]
        return tuple(torch.cat(parts) for parts in zip(*singles, strict=True))

    def _run(self, image: Tensor) -> tuple[Tensor, ...]:
        result = self.graph(image)
        return tuple(result) if isinstance(result, (list, tuple)) else (result,)

    @torch.no_grad()
    def _takes_batches(self) -> bool:
        """Whether two images judged together give what each gives alone."""
        height, width = self.size or (_FREE_SIDE, _FREE_SIDE)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(2, self.channels or 3, height, width, generator=generator)
        alone = [self._run(image) for image in images.split(1)]
        try:
            together = self._run(images)
        except (RuntimeError, IndexError, ValueError):
            return False
        return all(
            joint.shape[:1] == (2,)
            and joint[i : i + 1].shape == single.shape
            and torch.allclose(joint[i : i + 1], single, rtol=SAME, atol=SAME)
            for i in range(2)
            for joint, single in zip(together, alone[i], strict=True)
        )


# Side of the image on which a network of free size is tried: a multiple of every usual stride.
_FREE_SIDE = 128


def load_onnx(path: str | Path, outputs: Sequence[str] = ()) -> OnnxModule:
    """Read an ONNX file with one image input as a frozen differentiable module.

    Args:
        path: the file; external weights are read only from its own folder or below.
        outputs: tensors to return, by name, inside the network too; none: the file's own.

    Raises:
        ValueError: onnx2torch is not installed, the file is no ONNX file, it has not exactly one
            image input, a tensor does not exist, weights lie outside the file's folder, or
            operators have no differentiable counterpart; the message lists all of them.
    """
    path = Path(path)
    model = _read(path)
    _drop_initializers_from_inputs(model)
    _keep_outputs(model, outputs, path)
    _to_float32(model)
    signature = _signature(model, path)
    return OnnxModule(_convert(model, path), signature)


def _read(path: Path):
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
    except Exception as error:
        raise ValueError(f"{path.name}: its external weights cannot be read ({error})") from error
    return model


def _check_external_data(model, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in _tensors(model.graph):
        if tensor.data_location != tensor.EXTERNAL:
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        if not (folder / location).resolve().is_relative_to(folder):
            raise ValueError(
                f"{path.name} refers to weights outside its own folder ('{location}') and was not "
                "loaded; put the weights beside the file and export it again"
            )


def _tensors(graph) -> Iterator:
    """Every constant of a graph and of the graphs inside its operators."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else attribute.tensors)
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _tensors(inner)


def _drop_initializers_from_inputs(model) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)


def _keep_outputs(model, outputs: Sequence[str], path: Path) -> None:
    """Return exactly ``outputs`` and drop the operators that they do not need."""
    graph = model.graph
    wanted = list(outputs) or [value.name for value in graph.output]
    made_by = {name: node for node in graph.node for name in node.output if name}
    missing = [name for name in wanted if name not in made_by]
    if missing:
        own = ", ".join(value.name for value in graph.output)
        raise ValueError(
            f"{path.name} has no tensor named {', '.join(missing)}; its outputs are {own}"
        )
    needed_names, stack = set(), list(wanted)
    while stack:
        node = made_by.get(stack.pop())
        if node is None or node.output[0] in needed_names:
            continue
        needed_names.update(node.output[:1])
        stack.extend(node.input)
    nodes = [node for node in graph.node if node.output[0] in needed_names]
    known = {value.name: value for value in [*graph.output, *graph.value_info]}
    values = [known.get(name) or needed("onnx").ValueInfoProto(name=name) for name in wanted]
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.extend(values)
    used = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _to_float32(model) -> None:
    """A file in half precision computes in float32: on the CPU, and for the gradients."""
    onnx = needed("onnx")
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    for tensor in _tensors(model.graph):
        if tensor.data_type == half:
            array = onnx.numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == half:
                attribute.i = single
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = single


def _signature(model, path: Path) -> _Signature:
    inputs = model.graph.input
    shapes = [
        tuple(d.dim_value or None for d in value.type.tensor_type.shape.dim) for value in inputs
    ]
    if len(inputs) != 1 or len(shapes[0]) != 4:
        found = ", ".join(f"{v.name} {list(s)}" for v, s in zip(inputs, shapes, strict=True))
        raise ValueError(
            f"{path.name} must have one image input [batch, channels, height, width], got {found}"
        )
    outputs = tuple(value.name for value in model.graph.output)
    return _Signature(inputs[0].name, shapes[0], outputs)


def _convert(model, path: Path) -> nn.Module:
    onnx2torch = needed("onnx2torch")
    if _unknown_operators(model):
        model = _lifted(model)
    unknown = _unknown_operators(model)
    if unknown:
        raise ValueError(
            f"{path.name} cannot be differentiated: onnx2torch has no PyTorch counterpart for "
            f"{', '.join(unknown)}; use a network without these operators, or export it again "
            "without its post-processing"
        )
    try:
        # The module must be made of ordinary tensors, whatever mode the caller is in.
        with torch.inference_mode(False):
            return onnx2torch.convert(model)
    except Exception as error:  # converters raise many kinds
        raise ValueError(f"{path.name} cannot be converted to PyTorch: {error}") from error


def _lifted(model):
    """The same network with operators of version OPSET, or as it was where that fails."""
    onnx = needed("onnx")
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except Exception:  # the C++ converter raises what it likes; the operators are reported then
        return model


def _unknown_operators(model) -> list[str]:
    """Operators that onnx2torch has no converter for, such as ``Slice (version 1)``."""
    converters = needed("onnx2torch.node_converters", "onnx2torch")
    versions = {entry.domain: entry.version for entry in model.opset_import}
    unknown = set()
    for node in model.graph.node:
        version = versions.get(node.domain, versions.get("ai.onnx", 1))
        try:
            converters.get_converter(node.op_type, version, node.domain)
        except NotImplementedError:
            where = f"{node.domain}." if node.domain else ""
            unknown.add(f"{where}{node.op_type} (operator set {version})")
    return sorted(unknown)
