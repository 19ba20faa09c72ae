"""The demo model sampled under one condition, as the tests of energies need it."""

import torch
from torch import Tensor

from zmagic.guidance.conditions import Condition
from zmagic.guidance.settings import preset
from zmagic.guidance.trace import Trace
from zmagic.host.demo_model import demo_conditioning
from zmagic.host.hooks import HostSettings, attach

__all__ = ["sampled"]

SEED = 3


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
        cond, latent = demo_conditioning(), {"samples": torch.zeros(batch, 4, side, side)}
        (made,) = common_ksampler(
            guided, SEED, steps, 1.0, "dpmpp_2m", "karras", cond, cond, latent
        )
        pictures = vae.decode(made["samples"]).movedim(-1, 1).float().clamp(0.0, 1.0)
    return pictures, traces[0]
