"""The demo model sampled under one condition, as the tests of energies need it: told nothing."""

from functools import cache

import torch
from torch import Tensor

from zmagic.guidance.conditions import Condition
from zmagic.guidance.settings import preset
from zmagic.guidance.trace import Trace
from zmagic.host.demo_model import LATENT_CHANNELS, load_text_encoder
from zmagic.host.hooks import HostSettings, attach

__all__ = ["empty_latent", "said", "sampled"]

SEED = 3


def said(text: str = "") -> list:
    """The CONDITIONING of a prompt for the demo model, as CLIP Text Encode makes it."""
    from nodes import CLIPTextEncode

    with torch.inference_mode():
        return CLIPTextEncode().encode(_text_encoder(), text)[0]


@cache
def _text_encoder():
    return load_text_encoder()


def empty_latent(batch: int = 1, side: int = 16) -> dict:
    """The LATENT that a picture of the demo model begins with."""
    return {"samples": torch.zeros(batch, LATENT_CHANNELS, side, side)}


def sampled(
    model,
    vae,
    condition: Condition,
    strength: float,
    *,
    steps: int,
    batch: int = 1,
    side: int = 16,
    settings: str = "balanced",
) -> tuple[Tensor, Trace]:
    """Pictures ``[batch, 3, H, W]`` in [0, 1], and the trace of their run.

    Args:
        model, vae: of Load Z-Magic Demo.
        condition: what guides.
        strength: of the guidance; 0: none, the energies are measured all the same.
        side: of the latent.
        settings: the name of a preset.
    """
    from nodes import common_ksampler

    traces: list[Trace] = []
    chosen = HostSettings(preset(settings, strength=strength))
    guided = attach(model, (condition,), chosen, vae, traces.append)
    with torch.inference_mode():
        cond, latent = said(), empty_latent(batch, side)
        (made,) = common_ksampler(
            guided, SEED, steps, 1.0, "dpmpp_2m", "karras", cond, cond, latent
        )
        pictures = vae.decode(made["samples"]).movedim(-1, 1).float().clamp(0.0, 1.0)
    return pictures, traces[0]
