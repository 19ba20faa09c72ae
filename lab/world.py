"""What the measurements share: the host in this process, the demo model, its three conditions."""

import logging
from collections.abc import Sequence
from typing import Any

from scripts.headless import available_device, load_host, load_pack

load_pack()

import torch  # noqa: E402

# Results shall not depend on where they were made: single precision everywhere.
load_host(cpu=available_device("cuda") == "cpu", fp32=True)

from nodes import common_ksampler  # noqa: E402  # the host's

from zmagic.guidance.conditions import Condition  # noqa: E402
from zmagic.guidance.operations import OperationCounter  # noqa: E402
from zmagic.guidance.settings import GuidanceSettings  # noqa: E402
from zmagic.guidance.trace import Trace  # noqa: E402
from zmagic.host.demo_model import (  # noqa: E402
    LATENT_CHANNELS,
    load_autoencoder,
    load_text_encoder,
    load_unet,
    with_few_steps,
)
from zmagic.host.hooks import HostSettings, attach  # noqa: E402

from .methods import SAMPLER  # noqa: E402
from .photograph import photograph_conditions  # noqa: E402

logging.disable(logging.INFO)

__all__ = ["DemoWorld", "photograph_conditions"]

# How strongly the model follows prompts, and at which noise levels it is evaluated.
CFG, SCHEDULER = 3.0, "karras"
# By which solver and levels the model of few steps was distilled, without cfg.
FEW_STEPS_SAMPLER, FEW_STEPS_SCHEDULER = "euler", "sgm_uniform"


class DemoWorld:
    """The demo model under the stock sampler.

    Args:
        few_steps: the one that was distilled to four steps; all methods sample it as it was.
    """

    def __init__(self, few_steps: bool = False):
        self.cfg, self.scheduler = (1.0, FEW_STEPS_SCHEDULER) if few_steps else (CFG, SCHEDULER)
        self.sampler = FEW_STEPS_SAMPLER if few_steps else None  # None: as each method says
        with torch.inference_mode():
            self.model, self.vae = load_unet(), load_autoencoder()
            if few_steps:
                self.model = with_few_steps(self.model)
            self.clip = load_text_encoder()
            # Most of the time goes to the decoder, whose convolutions are faster in this order.
            # Set outside of this mode, it stops with an error at a batch of one.
            self.vae.first_stage_model.to(memory_format=torch.channels_last)
        self.latent_shape = (LATENT_CHANNELS, 16, 16)

    def sample(
        self,
        conditions: Sequence[Condition],
        settings: GuidanceSettings,
        seed: int,
        *,
        steps: int,
        batch: int,
        sampler: str = SAMPLER,
        prompts: Sequence[str] | None = None,
    ) -> tuple[torch.Tensor, Trace]:
        """Latents ``[batch, 16, 16, 16]`` and the trace of one run.

        Args:
            prompts: one for each picture, which the model follows beside the conditions; None: it
                is told nothing.
        """
        traces: list[Trace] = []
        model = attach(
            self.model, tuple(conditions), HostSettings(settings), self.vae, traces.append
        )
        latents = self._sampled(model, seed, steps, batch, sampler, prompts)
        return latents, traces[0]

    def forward_operations(self, prompts: bool = False) -> int:
        """Operations of one evaluation of the model for one picture."""
        with OperationCounter() as counter:
            self._sampled(self.model, 0, 1, 1, "euler", [""] if prompts else None)
        return sum(counter.totals.values())

    def _sampled(
        self,
        model: Any,
        seed: int,
        steps: int,
        batch: int,
        sampler: str,
        prompts: Sequence[str] | None,
    ) -> torch.Tensor:
        with torch.inference_mode():
            positive, negative, cfg = self._conditionings(prompts)
            sampler = self.sampler or sampler
            empty = {"samples": torch.zeros(batch, *self.latent_shape)}
            (latent,) = common_ksampler(
                model, seed, steps, cfg, sampler, self.scheduler, positive, negative, empty
            )
        return latent["samples"]

    def _conditionings(self, prompts: Sequence[str] | None) -> tuple[list, list, float]:
        """What the host's sampler takes for some prompts, and how strongly it follows them."""
        untold = self._said([""])
        if prompts is None:
            return untold, untold, 1.0
        return self._said(prompts), untold, self.cfg

    def _said(self, prompts: Sequence[str]) -> list:
        """The CONDITIONING of a batch whose pictures have a prompt each."""
        encoded = [self.clip.encode_from_tokens(self.clip.tokenize(each)) for each in prompts]
        return [[torch.cat(encoded), {}]]
