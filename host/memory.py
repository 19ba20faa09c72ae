"""Memory for gradients: what autograd will save, and whether blocks have to save only their inputs.

The figures are those of ``python -m lab.cost``, counted on SD1.5, SDXL, Flux and Z-Image at real
sizes, with a fifth to a half on top: for attribute networks, and for what a backward needs
besides.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from torch import nn

from .blocks import repeated_blocks
from .controls import control_share
from .decoders import USUAL_SCALE, is_tiny
from .overrides import every_module

__all__ = ["MEMORY", "Need", "RunMemory", "evaluations_of", "looked_at", "need_of"]

MEMORY = ("auto", "fast", "small")

# What the denoiser saves, in units of what the host reckons for a forward with fused attention.
# Where blocks save only their inputs, it is the same for all; else it grows with their number: in
# a U-Net most are small, in a transformer all work on the whole picture.
SMALL, TRANSFORMER, U_NET_BLOCK = 2.6, 31.0, 0.28
# What a decoder saves, in numbers per pixel of the picture that it makes: fast, small.
DECODERS = {"vae": (4300, 2200), "taesd": (470, 400), "linear_rgb": (16, 16)}
PIXELS = USUAL_SCALE**2  # of the picture per pixel of the latent
# Numbers per pixel of a picture that a network which looks at it, without a gradient, holds at most
# at once: LPIPS on VGG16, which sees it at its own size, 376.
LOOK = 450


@dataclass(frozen=True)
class Need:
    """Bytes that one guided look saves, with all that blocks save and with their inputs only."""

    fast: float
    small: float

    def __add__(self, other: "Need") -> "Need":
        return Need(self.fast + other.fast, self.small + other.small)


def need_of(
    model: Any, decoder: Any, shape: Sequence[int], evaluations: float, decodings: int = 1
) -> Need:
    """Estimate what a guided look of latents ``shape [B, C, (T,) H, W]`` saves.

    Args:
        model: the host's BaseModel.
        decoder: the ``Decoder`` that makes the picture.
        evaluations: what the model saves for one prediction, see ``evaluations_of``; 0 where the
            way back does not lead through it.
        decodings: how many predictions one look decodes at once.
    """
    unit = _unit(model, shape) * evaluations
    through_model = Need(unit * _units(model.diffusion_model), unit * SMALL)
    return through_model + _decoder_need(decoder, (decodings * shape[0], *shape[1:]))


def _unit(model: Any, shape: Sequence[int]) -> float:
    """Bytes that the host reckons for a forward of latents ``shape`` with fused attention."""
    area = shape[0] * math.prod(shape[2:])
    dtype = getattr(model, "manual_cast_dtype", None) or model.get_dtype()
    size = comfy.model_management.dtype_size(dtype)
    return area * size * 0.01 * model.memory_usage_factor * 1024 * 1024


def _units(network: nn.Module) -> float:
    blocks = repeated_blocks([network])
    if any(isinstance(module, nn.Conv2d) for module in every_module(blocks)):
        return len(blocks) * U_NET_BLOCK
    return TRANSFORMER


def _decoder_need(decoder: Any, shape: Sequence[int]) -> Need:
    pixels = shape[0] * math.prod(shape[2:]) * PIXELS
    modules = [patcher.model for patcher in decoder.patchers]
    weight = next((p for module in modules for p in module.parameters()), None)
    size = comfy.model_management.dtype_size(torch.float32 if weight is None else weight.dtype)
    if decoder.halves(shape):
        pixels //= 4
    kind = "linear_rgb"
    if modules:
        kind = "taesd" if all(map(is_tiny, modules)) else "vae"
    return Need(*(pixels * size * numbers for numbers in DECODERS[kind]))


def looked_at(pictures: Sequence[int]) -> float:
    """Bytes that one look of a network at ``pictures [B, 3, H, W]`` takes, without a gradient."""
    batch, _, height, width = pictures
    return batch * height * width * LOOK * comfy.model_management.dtype_size(torch.float32)


def evaluations_of(guider: Any, shape: Sequence[int]) -> float:
    """What one prediction of the host's ``guider`` saves, in plain evaluations of its model.

    Every conditioning is evaluated; its reference pictures make that larger by their area, and its
    ControlNets by their blocks.
    """
    skipped = ("negative",) if getattr(guider, "cfg", None) == 1.0 else ()
    conds = getattr(guider, "conds", {"positive": [{}]})
    model, picture = guider.model_patcher.model, [1, *shape[1:]]
    return sum(
        _area(model, picture, cond) + control_share(cond, model.diffusion_model)
        for name, each in conds.items()
        if name not in skipped
        for cond in each
    )


def _area(model: Any, picture: list[int], cond: dict) -> float:
    """What the model sees with a conditioning, in pictures, as the host reckons it."""
    shapes = {name: [shape] for name, shape in model.extra_conds_shapes(**cond).items()}
    plain = model.memory_required(picture)
    return model.memory_required(picture, cond_shapes=shapes) / plain if plain else 1.0


# What a run does when memory is short, one after the other, and the words for it.
WAYS = ("fast", "small", "tiled")
SAVED = {
    "small": (
        "each block of the models runs a second time instead of keeping what it computed "
        "(memory 'small')"
    ),
    "tiled": (
        "conditions see the picture decoded in overlapping tiles, one at a time, whose tints and "
        "contrast may differ"
    ),
}


class RunMemory:
    """The choice of one run: ``fast``, where blocks save all, ``small``, or ``tiled``: small, and
    the picture is decoded in tiles. That is another picture, so that nobody begins with it.

    Args:
        wanted: one of ``MEMORY``; ``auto`` takes ``fast`` if the device has room for it when the
            models are loaded.
        need: what is saved, fast and small.
        possible: whether blocks can save only their inputs: not under second derivatives.
        tiles: whether the picture is more than one tile.
    """

    def __init__(self, wanted: str, need: Need, *, possible: bool = True, tiles: bool = False):
        self._wanted, self._need = wanted, need
        self._ways = WAYS[: 1 + possible + (possible and tiles)]
        self._way = None if wanted == "auto" else wanted
        if not possible:
            self._way = "fast"

    def times(self, model: Any, shape: Sequence[int]) -> int:
        """By how much to multiply a batch for the host to find room for the gradient, too.

        The host reckons what a forward of a batch needs, frees that for twice the batch, and
        keeps at least that for the batch itself from the weights.
        """
        need = self._need.fast if self._way == "fast" else self._need.small
        return 1 + math.ceil(need / max(model.memory_required(list(shape)), 1.0))

    def is_small(self, device: torch.device) -> bool:
        """Whether blocks are to save only their inputs; decided when it is first asked."""
        if self._way is None:
            free = comfy.model_management.get_free_memory(device)
            self._way = "small" if free < self._need.fast else "fast"
        return self._way != "fast"

    @property
    def tiled(self) -> bool:
        """Whether the picture is to be decoded in tiles."""
        return self._way == "tiled"

    def save(self) -> str | None:
        """Take less, for the rest of the run; what is taken, None if nothing is left to save."""
        if self._way is None or self._way == self._ways[-1]:
            return None
        self._way = self._ways[self._ways.index(self._way) + 1]
        return SAVED[self._way]

    @property
    def taken(self) -> str:
        """What the report says."""
        taken = self._way or "not needed"
        return taken if taken == self._wanted else f"{self._wanted} ({taken})"
