"""The host's sampling of a model with random weights, timed step by step."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .random_models import Architecture, random_autoencoder, random_model, random_taesd

__all__ = ["Sampled", "Subject", "real_subject", "sampled", "sigmas_of"]


@dataclass(frozen=True)
class Subject:
    """A subject to be sampled: a MODEL, its conditionings and latent ``[1, C, h, w]``, the VAEs.

    ``vaes`` are those for guidance, by the names of decoders; ``vae`` is the model's own.
    """

    model: ModelPatcher
    positive: list
    negative: list
    shape: tuple[int, ...]
    cfg: float
    vaes: dict[str, comfy.sd.VAE]

    @property
    def side(self) -> int:
        """The side of the picture in pixels."""
        return 8 * self.shape[-1]

    def decoder(self, name: str) -> tuple[str, comfy.sd.VAE]:
        """Return what to choose and which VAE to connect for one of the host's decoders.

        TAESD is connected like a VAE: its files need not be installed.
        """
        if name in self.vaes:
            return "vae", self.vaes[name]
        return name, self.vaes["vae"]


@dataclass(frozen=True)
class Sampled:
    """A sampling that has ended.

    Args:
        seconds: those of each step; the first one begins when the host starts to prepare.
        after: seconds from the last evaluation of the model to the end.
        samples: the latent ``[1, C, h, w]``.
    """

    seconds: list[float]
    after: float
    samples: Tensor


def real_subject(
    kind: Architecture, side: int | None = None, dtype: torch.dtype | None = None
) -> Subject:
    """Make a model of the published size, in the precision that people use.

    Args:
        kind: the architecture.
        side: side of the picture in pixels; None: that which the model was made for.
        dtype: precision of the model; None: that which people use.
    """
    side = (side or kind.side) // 8
    device = comfy.model_management.get_torch_device()
    return Subject(
        random_model(kind, dtype or kind.dtype, device),
        kind.conditioning(1),
        kind.conditioning(2),
        (1, kind.channels, side, side),
        kind.cfg,
        {"vae": random_autoencoder(kind.channels), "taesd": random_taesd(kind.channels)},
    )


def sigmas_of(model: ModelPatcher, steps: int) -> Tensor:
    """The noise levels ``[steps + 1]`` of the scheduler ``normal``."""
    return comfy.samplers.calculate_sigmas(
        model.get_model_object("model_sampling"), "normal", steps
    )


def sampled(
    subject: Subject,
    model: ModelPatcher,
    sigmas: Tensor,
    clock: Callable[[], float] = time.perf_counter,
) -> Sampled:
    """Sample by euler.

    Args:
        subject: what is sampled.
        model: its model, guided or not.
        sigmas: the noise levels of the steps, ``[steps + 1]``.
        clock: returns the seconds from some beginning.
    """
    ends: list[float] = []

    def callback(step: int, x0: Tensor, x: Tensor, total: int) -> None:
        _wait(model.load_device)
        ends.append(clock())

    noise = torch.randn(subject.shape, generator=torch.Generator().manual_seed(1))
    steps = len(sigmas) - 1
    with torch.inference_mode():
        began = clock()
        samples = comfy.sample.sample(
            model,
            noise,
            steps,
            subject.cfg,
            "euler",
            "normal",
            subject.positive,
            subject.negative,
            torch.zeros(subject.shape),
            sigmas=sigmas,
            callback=callback,
            disable_pbar=True,
            seed=1,
        )
        _wait(model.load_device)
        over = clock()
    seconds = [end - start for start, end in zip([began, *ends], ends, strict=False)]
    return Sampled(seconds, over - ends[-1], samples)


def _wait(device: torch.device) -> None:
    """Wait until the device has done what it was asked for."""
    module = getattr(torch, device.type, None)
    if hasattr(module, "synchronize"):
        module.synchronize()
