"""A patch of cross attention as packs for image prompts (IPAdapter and its like) set it.

A replacement of ``attn2`` in chosen blocks: the host's attention over the text's tokens, called by
its name, plus that over a picture's tokens, with keys and values of the patch's own. Beyond the
first it is a list of such patches, whose results are added up; positive and negative have tokens
each; a window of the sampling bounds it by the noise level in the options.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from torch import Tensor

__all__ = ["BLOCKS", "patched"]

# Where each small specimen has cross attention.
BLOCKS = {
    "sd15": [("input", 1), ("middle", 0), ("output", 0)],
    "sdxl": [("input", 3, 0), ("input", 3, 1), ("middle", 0, 0), ("output", 1, 1)],
}


@dataclass
class PicturePrompt:
    """What a replacement adds: tokens of the picture ``[1, T, C]``, its keys and values."""

    tokens: Tensor
    other: Tensor
    weight: float
    until: float  # the noise level below which it is silent
    projections: dict[Any, Tensor] = field(default_factory=dict)

    def __call__(self, q: Tensor, options: dict, place: Any) -> Tensor | float:
        if options["sigmas"][0].item() < self.until:
            return 0.0
        repeats = q.shape[0] // len(options["cond_or_uncond"])
        tokens = [self.other if each else self.tokens for each in options["cond_or_uncond"]]
        seen = torch.cat([each.repeat(repeats, 1, 1) for each in tokens]).to(q)
        key, value = self._projected(place, seen, q.shape[-1])
        return self.weight * optimized_attention(q, key, value, options["n_heads"])

    def _projected(self, place: Any, tokens: Tensor, width: int) -> tuple[Tensor, Tensor]:
        if place not in self.projections:
            generator = torch.Generator().manual_seed(len(self.projections))
            size = (2, tokens.shape[-1], width)
            drawn = torch.randn(size, generator=generator) * tokens.shape[-1] ** -0.5
            self.projections[place] = drawn.to(tokens)
        return tuple(tokens @ each for each in self.projections[place])


class Replacement:
    """The callable that the host asks in the place of its own cross attention."""

    def __init__(self, prompt: PicturePrompt, place: tuple) -> None:
        self.prompts, self.place = [prompt], place

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        out = optimized_attention(q, k, v, extra_options["n_heads"])
        for prompt in self.prompts:
            out = out + prompt(q, extra_options, self.place)
        return out.to(q.dtype)


def patched(
    model: ModelPatcher, blocks: list[tuple], width: int, weight: float = 1.0, until: float = 0.0
) -> ModelPatcher:
    """A clone of the model with a picture's tokens of ``width`` in the cross attention."""
    generator = torch.Generator().manual_seed(12)
    tokens = torch.randn(1, 4, width, generator=generator)
    prompt = PicturePrompt(tokens, torch.zeros_like(tokens), weight, until)
    model = model.clone()
    for block in blocks:
        model.set_model_attn2_replace(Replacement(prompt, block), *block)
    return model
