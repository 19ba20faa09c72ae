"""Gradients to a latent through a decoder at half size and through the whole one, side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import comfy.sd
import torch
import torch.nn.functional as F
from comfy.latent_formats import LatentFormat
from torch import Tensor

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import ColorPalette, ReferenceImage, Text
from zmagic.host.decoders import Decoder, choose_decoder, halved
from zmagic.host.demo_model import (
    LAYOUT_FILE,
    MAN_FILE,
    PHOTOGRAPH_FILE,
    WOMAN_FILE,
    load_photograph,
)
from zmagic.host.demo_networks import demo_clip
from zmagic.host.gradients import differentiable, normal

from .network_conditions import network_conditions

__all__ = [
    "PICTURES",
    "Compared",
    "compared",
    "conditions",
    "gradients",
    "half_and_whole",
    "means",
    "picture",
]

PICTURES = (PHOTOGRAPH_FILE, WOMAN_FILE, MAN_FILE)
PROMPT = "a portrait of an old man with a gray beard"
SMOOTH = 0.1  # of the picture's height


class Compared(NamedTuple):
    """The cosine of two gradients, and the two numbers of which it is the product."""

    cosine: float
    share: float
    agreement: float


def picture(path: Path, side: int) -> Tensor:
    """``[1, 3, side, side]`` in [0, 1]."""
    pixels = load_photograph(path).movedim(-1, 1)
    return F.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(0.0, 1.0)


def conditions(side: int) -> tuple[Condition, ...]:
    """What the gradients are of: networks and pixels, fine and smooth."""
    clip, layout = demo_clip(), picture(LAYOUT_FILE, side)
    text = Text(clip.image, clip.preprocessing, clip.texts([PROMPT])[None], torch.ones(1))
    return (
        Condition("text, demo CLIP", text),
        *network_conditions(1),  # a CLIP of the usual size
        Condition("palette", ColorPalette(reference=layout)),
        Condition("reference", ReferenceImage(layout)),
        Condition("reference, smooth", ReferenceImage(layout, SMOOTH)),
    )


def half_and_whole(vae: comfy.sd.VAE) -> list[Decoder]:
    """The decoders of a VAE's own latents at half size and as they are."""
    latents = LatentFormat()
    latents.latent_channels = vae.latent_channels
    return [choose_decoder(kind, vae, latents) for kind in ("vae_half", "vae")]


def gradients(decoder: Decoder, latent: Tensor, wanted: Sequence[Condition]) -> list[Tensor]:
    """The gradient of each energy at ``latent``, which is on the decoder's scale."""
    networks = [each.module for c in wanted for each in getattr(c.energy, "networks", ())]
    with differentiable(None, [*(p.model for p in decoder.patchers), *networks]):
        start = normal(latent).requires_grad_(True)
        image = decoder.decode(lambda z: z, start)
        found = []
        for condition in wanted:
            energy = condition.energy(image).sum()
            found.append(torch.autograd.grad(energy, start, retain_graph=True)[0].detach())
    return found


def compared(half: Tensor, whole: Tensor) -> Compared:
    """Compare two gradients ``[1, C, H, W]``; ``half`` came through half of the latent."""
    rows, columns = map(_seen_by_half, whole.shape[-2:])
    coarse = rows @ whole @ columns
    share = float(coarse.norm() / whole.norm())
    agreement = float(F.cosine_similarity(half.flatten(), coarse.flatten(), 0))
    return Compared(share * agreement, share, agreement)


def _seen_by_half(length: int) -> Tensor:
    """The projection ``[length, length]`` onto what reaches a side of that length through half."""
    basis = torch.eye(length)[None, :, :, None].expand(-1, -1, -1, length)
    small = halved(basis)[0, :, :, 0].T.double()  # [length / 2, length]
    return (torch.linalg.pinv(small) @ small).float()


def means(
    vae: comfy.sd.VAE, latents: Sequence[Tensor], wanted: Sequence[Condition]
) -> list[list[float]]:
    """For each condition what is ``Compared``, on average over the latents."""
    decoders = half_and_whole(vae)
    found = []
    for latent in latents:
        half, whole = (gradients(decoder, latent, wanted) for decoder in decoders)
        found.append([compared(*pair) for pair in zip(half, whole, strict=True)])
    return torch.tensor(found).mean(0).tolist()
