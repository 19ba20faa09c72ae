"""A converted network against its file: both see pictures of noise, onnxruntime runs the file.

It finds whatever a converter gets wrong, once for each file.
"""

import hashlib
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..optional_packages import needed
from ..wording import one_line, printable
from .onnx_checks import Unusable
from .onnx_signature import OnnxSignature, normalizes

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["OnnxReference", "noise"]

log = logging.getLogger(__name__)

# Largest difference in parts of the span of an output's values.
TOLERANCE = 0.01

# What single precision may lose, in parts of an output's largest magnitude.
ROUNDING = 1e-5

# Protocol buffers end at 2 GiB.
LARGEST_MESSAGE = 2**31 - 2**24

# Pictures in a batch that a file insists on, at most: it would see that many at once.
LARGEST_BATCH = 16

COMPARED = 2  # pictures

# Kinds of inputs in whole numbers, as onnxruntime calls them.
WHOLE = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(int64)": np.int64}


def noise(signature: OnnxSignature, free_size: tuple[int, int], largest: float = 0.0) -> Tensor:
    """Pictures of noise for a network, ``[2, C, h, w]``, the same ones always.

    Args:
        largest: the largest value, where values begin at 0; 0: standard normal ones, as most
            networks see pictures.
    """
    shape = (COMPARED, signature.channels or 3, *(signature.size or free_size))
    generator = torch.Generator().manual_seed(0)
    if largest:
        return torch.rand(shape, generator=generator) * largest
    return torch.randn(shape, generator=generator)


class OnnxReference:
    """What a file must be compared for.

    Args:
        model: the model as it was read, returning the outputs that are wanted.
        signature: the signature of the file.
        free_size: height and width of the pictures, for a network of free size.
    """

    def __init__(self, model: "ModelProto", signature: OnnxSignature, free_size: tuple[int, int]):
        self.key = _digest(model, signature.size or free_size)
        self.signature, self.free_size = signature, free_size

    @torch.no_grad()
    def compare(self, module: nn.Module, model: Callable[[], "ModelProto"], name: str) -> None:
        """See that the module computes what the file does.

        Args:
            module: pictures to a tuple of outputs, on the CPU.
            model: reads the file again.
            name: the file's, for the log.

        Raises:
            Unusable: it computes something else.
        """
        if self.key in _RESULTS:
            if _RESULTS[self.key]:
                raise Unusable(_RESULTS[self.key])
            return
        try:
            runtime = needed("onnxruntime")
        except ValueError:
            log.warning(
                "%s was not compared with onnxruntime, which is not installed", printable(name)
            )
            return
        try:
            pictures, expected = _by_onnxruntime(runtime, model(), self.signature, self.free_size)
        except Exception as error:  # of the library's own kinds
            reason = one_line(error)
            log.warning(
                "%s was not compared: onnxruntime cannot run it (%s)", printable(name), reason
            )
            return
        _RESULTS[self.key] = _compared(module, pictures, expected)
        self.compare(module, model, name)


# For a part of an output: its rounding follows the largest values that it was computed with.
PART_ROUNDING = 1e-4
MOST_PARTS = 4096

# By content: what is wrong with it, empty for nothing.
_RESULTS: dict[str, str] = {}


def _digest(model: "ModelProto", size: tuple[int, int]) -> str:
    """Return a digest of all that decides on a network's values."""
    graph = model.graph
    digest = hashlib.sha256(repr((size, [str(o) for o in model.opset_import])).encode())
    for message in (*graph.input, *graph.output, *graph.node, *graph.initializer):
        digest.update(message.SerializeToString())
    return digest.hexdigest()


def _by_onnxruntime(
    runtime: Any, model: "ModelProto", signature: OnnxSignature, free_size: tuple[int, int]
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Pictures ``[1, C, h, w]``, and for each the outputs ``[1, ...]`` by the file itself."""
    scale = 255.0 if normalizes(model.graph, signature.input_name) else 0.0
    count = signature.input[0] or 1
    if count > LARGEST_BATCH:
        raise ValueError(f"it takes {count} pictures at once")
    session = _session(runtime, model)
    (entry,) = session.get_inputs()
    whole = WHOLE.get(entry.type)
    pictures = noise(signature, free_size, 255.0 if whole else scale).split(1)
    if whole:
        pictures = [picture.floor() for picture in pictures]
    expected = []
    for picture in pictures:
        batch = picture.expand(count, -1, -1, -1)
        batch = batch.movedim(1, -1) if signature.channels_last else batch
        fed = batch.contiguous().numpy().astype(whole or np.float32)
        results = [torch.from_numpy(np.asarray(r)) for r in session.run(None, {entry.name: fed})]
        results = [signature.as_batch(r, picture.shape[-2:]) for r in results]
        expected.append([r[:1] if r.shape[0] == count > 1 else r for r in results])
    return list(pictures), expected


def _session(runtime: Any, model: "ModelProto") -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    # As it is written: nothing is gained by an optimized graph that runs twice.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    # Without a fallback, which prints what is wrong before it tries the same again.
    arguments = {"providers": ["CPUExecutionProvider"], "enable_fallback": 0}
    arguments["sess_options"] = options
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) < LARGEST_MESSAGE:
        return runtime.InferenceSession(model.SerializeToString(), **arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        needed("onnx").save_model(model, str(path), save_as_external_data=True, location="weights")
        del model
        return runtime.InferenceSession(str(path), **arguments)


def _compared(module: nn.Module, pictures: list[Tensor], expected: list[list[Tensor]]) -> str:
    """What the module does else than expected, empty for nothing."""
    try:
        found = [module(picture) for picture in pictures]
    except Exception as error:  # of PyTorch's operators
        return f"cannot be run on one image of {_size(pictures[0])} pixels: {one_line(error)}"
    names: Any = module.outputs
    for i, name in enumerate(names):
        ours = [outputs[i] for outputs in found]
        theirs = [outputs[i] for outputs in expected]
        different = _different(ours, theirs)
        if different:
            return (
                "becomes another function in PyTorch and was not loaded: use another export of "
                f"the network\n(output {name!r} of noise {different})"
            )
    return ""


def _different(ours: list[Tensor], theirs: list[Tensor]) -> str:
    """How two outputs for the same pictures differ, empty if they do not."""
    for our, their in zip(ours, theirs, strict=True):
        if our.shape != their.shape:
            return f"has the shape {list(our.shape)}, expected {list(their.shape)}"
    parts = _worst_part(ours, theirs)
    our, their = (torch.cat([part.flatten() for part in parts]) for parts in (ours, theirs))
    if not their.is_floating_point():
        share = (our.double() != their.double()).double().mean().item() if our.numel() else 0.0
        return f"differs in {share:.0%} of its whole numbers" if share > TOLERANCE else ""
    our, their = our.double(), their.double()
    known = their.isfinite()
    if not our[known].isfinite().all():
        return "is not finite where the file's is"
    if not known.any():
        return ""
    our, their = our[known], their[known]
    span = (their.max() - their.min()).item()
    largest = (our - their).abs().max().item()
    if largest <= TOLERANCE * span + ROUNDING * their.abs().max().item():
        return parts
    if span == 0.0:
        return f"differs by {largest:.3g} from the file's {their[0].item():.3g}"
    return f"differs by {largest / span:.0%} of the span of the file's"


def _worst_part(ours: list[Tensor], theirs: list[Tensor]) -> str:
    """How a part of two outputs differs, seen by its own span; empty if none does.

    A detector's boxes in pixels would hide its scores, between 0 and 1: each index of the axis
    behind the batch, and of the last one, is looked at by itself.
    """
    if not theirs[0].is_floating_point() or theirs[0].ndim < 2 or not theirs[0].numel():
        return ""
    our, their = (torch.cat(parts).double() for parts in (ours, theirs))
    if not (our.isfinite().all() and their.isfinite().all()):
        return ""
    floor = PART_ROUNDING * their.abs().max().item()
    for axis in {1, their.ndim - 1}:
        if not 1 < their.shape[axis] <= MOST_PARTS:
            continue
        own, other = (t.movedim(axis, 0).flatten(1) for t in (our, their))
        span = other.amax(1) - other.amin(1)
        difference = (own - other).abs().amax(1)
        wrong = (difference > TOLERANCE * span + floor).nonzero().flatten().tolist()
        if wrong:
            k = wrong[0]
            return f"differs by {difference[k].item():.3g} at index {k} of axis {axis}"
    return ""


def _size(picture: Tensor) -> str:
    return f"{picture.shape[-1]} x {picture.shape[-2]}"
