"""Attribute networks under the host's memory management: loaded with the diffusion model, freed by
the host, and run where the host put them.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

import comfy.model_management
import comfy.model_patcher
import torch
from torch import Tensor, nn

__all__ = [
    "Network",
    "content_of",
    "file_stamp",
    "load_networks",
    "patchers_of",
    "shared",
    "stamp_of",
]

Result = TypeVar("Result")

# Encoded references kept by one network; a graph has a handful.
REFERENCES_KEPT = 32


class Network:
    """A frozen network that the host loads before a run; an energy calls it like a function.

    Results come back in float32 on the device of the input. In half precision the gradient is
    scaled on its way through, so that it neither underflows nor overflows.

    Args:
        module: takes and returns floating point tensors, or tuples of them; integers go in as
            they are.
        name: what messages call it, such as the file's name.
        dtype: the dtype of the computation; float32 unless the network is known to bear less.
        patcher: the ModelPatcher under which ``module``'s weights already are, as they are:
            another view of a network, or a model of the host's own. None: it gets its own.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        dtype: torch.dtype = torch.float32,
        patcher: comfy.model_patcher.ModelPatcher | None = None,
    ):
        self.name = name
        self.dtype = dtype
        self.module = module
        self.patcher = patcher
        if patcher is None:
            with torch.inference_mode(False):  # weights shall be ordinary tensors
                self.module = module.to(dtype).eval().requires_grad_(False)
            # Read at run time: the host replaces CoreModelPatcher when dynamic memory is on.
            self.patcher = comfy.model_patcher.CoreModelPatcher(
                self.module,
                load_device=comfy.model_management.get_torch_device(),
                offload_device=comfy.model_management.unet_offload_device(),
            )
        self._references: OrderedDict[Hashable, object] = OrderedDict()

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        device = self._device(inputs[0].device)
        scale = None if self.dtype in (torch.float32, torch.float64) else _GradientScale()
        moved = [x.to(device) for x in inputs]
        moved = [self._entered(x, scale) for x in moved]
        result = self.module(*moved)
        if isinstance(result, Tensor):
            return self._left((result,), scale, inputs[0])[0]
        return self._left(result, scale, inputs[0])

    def reference(self, compute: Callable[..., Result], *inputs: Tensor, key: Hashable = ()):
        """Compute ``compute(*inputs)`` outside sampling, once per content of the inputs.

        The host loads the network first. ``compute`` runs without gradients on ordinary tensors;
        its result is shared between callers and must not be changed.

        Args:
            compute: calls this network.
            inputs: the tensors it is computed from.
            key: whatever else the result depends on.
        """
        content = (key, *(content_of(x) for x in inputs))
        if content not in self._references:
            comfy.model_management.load_models_gpu([self.patcher])
            with torch.inference_mode(False), torch.no_grad():
                self._references[content] = compute(*(x.detach().clone() for x in inputs))
            while len(self._references) > REFERENCES_KEPT:
                self._references.popitem(last=False)
        self._references.move_to_end(content)
        return self._references[content]

    def _device(self, default: torch.device) -> torch.device:
        """Where the inputs have to be."""
        modules = self.module.modules()
        if any(getattr(m, "comfy_cast_weights", False) for m in modules):
            return self.patcher.load_device  # layers of the host bring their weights to the input
        return _device_of(self.module, default)

    def _entered(self, x: Tensor, scale: "_GradientScale | None") -> Tensor:
        if not x.is_floating_point():
            return x
        if scale is None or not x.requires_grad:
            return x.to(self.dtype)
        return scale.undone_at(x).to(self.dtype)

    def _left(
        self, parts: tuple[Tensor, ...], scale: "_GradientScale | None", like: Tensor
    ) -> tuple[Tensor, ...]:
        dtype = like.dtype if like.is_floating_point() else torch.float32
        if scale is not None and any(part.requires_grad for part in parts):
            # As one tensor: the gradients of all parts are scaled by the same number.
            together = scale.applied_at(torch.cat([part.float().flatten() for part in parts]))
            pieces = together.split([part.numel() for part in parts])
            parts = [piece.view_as(part) for piece, part in zip(pieces, parts, strict=True)]
        return tuple(part.to(like.device, dtype) for part in parts)


class _GradientScale:
    """Brings a gradient to magnitude 1 where it enters half precision and back where it leaves."""

    def __init__(self):
        self.peak: Tensor | None = None

    def applied_at(self, output: Tensor) -> Tensor:
        """``output``; its gradient is divided by its largest magnitude."""
        output = output.view_as(output)
        output.register_hook(self._shrink)
        return output

    def undone_at(self, x: Tensor) -> Tensor:
        """``x``; its gradient is multiplied by that magnitude."""
        x = x.view_as(x)
        x.register_hook(lambda gradient: gradient * self.peak)
        return x

    def _shrink(self, gradient: Tensor) -> Tensor:
        peak = gradient.detach().abs().max()
        self.peak = torch.where(peak > 0.0, peak, torch.ones_like(peak))
        return gradient / self.peak


def load_networks(networks: Iterable[object], memory: float = 0.0) -> None:
    """Have the host load those of ``networks`` that it manages, for a look outside sampling.

    Args:
        networks: such as an energy has; several may be views of one.
        memory: bytes that the look takes besides the weights.
    """
    comfy.model_management.load_models_gpu(patchers_of(networks), memory_required=memory)


def patchers_of(networks: Iterable[object]) -> list[comfy.model_patcher.ModelPatcher]:
    """The ModelPatchers of those of ``networks`` that the host manages, each once."""
    patchers = {id(n.patcher): n.patcher for n in networks if isinstance(n, Network)}
    return list(patchers.values())


def shared(kind: str, path: str | Path, options: Hashable, load: Callable[[], Result]) -> Result:
    """Return what ``load`` makes of a file, once for all nodes, as long as one of them uses it.

    A file that has changed (time or size) is loaded anew.
    """
    key = (kind, file_stamp(path), options)
    found = _SHARED.get(key)
    if found is None:
        found = _SHARED[key] = load()
    return found


# Weak: a network lives as long as the node outputs that hold it, which are the host's to drop.
_SHARED: WeakValueDictionary = WeakValueDictionary()


def file_stamp(path: str | Path) -> tuple[str, int, int]:
    """Return what identifies a file's content: its path, size in bytes, time of change in ns."""
    path = Path(path)
    status = path.stat()
    return (str(path.resolve()), status.st_size, status.st_mtime_ns)


def stamp_of(find: Callable[[], Path], name: str) -> tuple:
    """Make a node's fingerprint: the stamp of the file that ``find`` returns for ``name``.

    While there is no file (``find`` raises ValueError) the name stands for it.
    """
    try:
        return file_stamp(find())
    except ValueError:
        return (name if isinstance(name, str) else repr(name),)


def content_of(tensor: Tensor) -> str:
    """Return a digest of a tensor's shape, dtype and values."""
    array = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(repr((array.shape, array.dtype)).encode())
    digest.update(array.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _device_of(module: nn.Module, default: torch.device) -> torch.device:
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return default
