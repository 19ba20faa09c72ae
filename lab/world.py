"""What the measurements share: the host in this process, the demo model, its three conditions."""

import logging
from collections.abc import Sequence

from scripts.headless import available_device, load_host, load_pack

load_pack()

import torch  # noqa: E402

# Results shall not depend on where they were made: single precision everywhere.
load_host(cpu=available_device("cuda") == "cpu", fp32=True)

from nodes import common_ksampler  # noqa: E402  # the host's

from zmagic.guidance.conditions import Condition  # noqa: E402
from zmagic.guidance.settings import GuidanceSettings  # noqa: E402
from zmagic.guidance.trace import Trace  # noqa: E402
from zmagic.host.demo_model import demo_conditioning, load_autoencoder, load_unet  # noqa: E402
from zmagic.host.hooks import HostSettings, attach  # noqa: E402

from .photograph import photograph_conditions  # noqa: E402

logging.disable(logging.INFO)

__all__ = ["DemoWorld", "photograph_conditions"]


class DemoWorld:
    """The demo model under the stock sampler."""

    def __init__(self):
        with torch.inference_mode():
            self.model, self.vae = load_unet(), load_autoencoder()
        # Most of the time goes to the decoder, whose convolutions are faster in this order.
        self.vae.first_stage_model.to(memory_format=torch.channels_last)

    def sample(
        self,
        conditions: Sequence[Condition],
        settings: GuidanceSettings,
        seed: int,
        *,
        steps: int,
        batch: int,
    ) -> tuple[torch.Tensor, Trace]:
        """Latents ``[batch, 4, 16, 16]`` and the trace of one run."""
        traces: list[Trace] = []
        model = attach(
            self.model, tuple(conditions), HostSettings(settings), self.vae, traces.append
        )
        with torch.inference_mode():
            cond = demo_conditioning()
            empty = {"samples": torch.zeros(batch, 4, 16, 16)}
            (latent,) = common_ksampler(
                model, seed, steps, 1.0, "dpmpp_2m", "karras", cond, cond, empty
            )
        return latent["samples"], traces[0]
