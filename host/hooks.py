"""Installs the engine into a MODEL: wrappers around the host's sampling, one state per run.

The prediction is corrected where every sampler, scheduler and guider of the host passes: behind
PREDICT_NOISE. The host's solver, inpaint mask and multistep history see a denoised prediction
like any other.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import comfy.model_patcher
import comfy.sd
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..guidance.conditions import Condition
from ..guidance.engine import GuidedRun
from ..guidance.settings import PRESETS, GuidanceSettings
from ..guidance.steps import NoiseLevel
from ..guidance.trace import Trace
from .decoders import Decoder, choose_decoder
from .gradients import differentiable, differentiable_options, normal

__all__ = ["HostSettings", "attach"]

log = logging.getLogger(__name__)

KEY = "zmagic"
# What a backward keeps, in multiples of the host's estimate for a plain forward: the saved
# activations of the denoiser (about three forwards' worth) and those of the decoder.
GRADIENT_MEMORY = 4


@dataclass(frozen=True)
class HostSettings:
    """Guidance settings plus what only the host knows: which decoder shows the image."""

    guidance: GuidanceSettings = PRESETS["balanced"]
    decoder: str = "auto"


@dataclass(frozen=True)
class _Attachment:
    """What a MODEL carries: immutable, because the host caches and clones models."""

    conditions: tuple[Condition, ...]
    settings: HostSettings
    vae: comfy.sd.VAE | None
    decoder: Decoder
    on_finish: tuple[Callable[[Trace], None], ...] = ()


def attach(
    model,
    conditions: tuple[Condition, ...],
    settings: HostSettings | None = None,
    vae: comfy.sd.VAE | None = None,
    on_finish: Callable[[Trace], None] | None = None,
):
    """A clone of ``model`` (a ModelPatcher) whose sampling satisfies ``conditions``.

    A model that is guided already gets the new conditions behind its own: one engine balances
    them all. Settings and VAE given here win over those attached before.

    Args:
        on_finish: called with the trace at the end of every run.

    Raises:
        ValueError: the decoder that the settings ask for cannot be had.
    """
    before: _Attachment | None = model.get_attachment(KEY)
    if before is not None:
        conditions = before.conditions + conditions
        settings = settings or before.settings
        vae = vae or before.vae
    settings = settings or HostSettings()
    finishers = (before.on_finish if before else ()) + ((on_finish,) if on_finish else ())
    decoder = choose_decoder(settings.decoder, vae, model.get_model_object("latent_format"))
    attachment = _Attachment(conditions, settings, vae, decoder, finishers)

    model = model.clone()
    model.set_attachments(KEY, attachment)
    # The host loads these with the model, so that nothing has to be loaded inside a step.
    networks = [n.patcher for c in conditions for n in c.networks]
    patchers = {id(p): p for p in [*decoder.patchers, *networks]}  # energies share networks
    model.set_additional_models(KEY, list(patchers.values()))
    hooks = _Hooks(attachment)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, hooks.outer_sample),
        (WrappersMP.PREDICT_NOISE, hooks.predict_noise),
        (WrappersMP.PREPARE_SAMPLING, hooks.prepare_sampling),
    ):
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, wrapper)
    return model


@dataclass(frozen=True)
class _Hooks:
    """The wrappers; the state of a run lives in the run's own model options."""

    attachment: _Attachment

    def prepare_sampling(self, executor, model, noise_shape, conds, *args, **kwargs):
        """Ask the host for the memory of a backward: its estimate is that of a forward."""
        if self.attachment.settings.guidance.backpropagates:
            noise_shape = [noise_shape[0] * GRADIENT_MEMORY, *noise_shape[1:]]
        return executor(model, noise_shape, conds, *args, **kwargs)

    def outer_sample(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        """Make the run's state, sample, report, and drop the state whatever happens."""
        parts = len(kwargs.get("latent_shapes") or [None])
        if parts > 1:
            raise ValueError(
                "Z-Magic guides one latent image: expected a plain latent, got a packed one of "
                f"{parts} parts (audio-video model)"
            )
        guider = executor.class_obj
        run = _HostRun(self.attachment, guider, sigmas, _seed(args, kwargs))
        guider.model_options[KEY] = run
        try:
            samples = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
            trace = run.finish(samples)
        finally:
            guider.model_options.pop(KEY, None)
        log.info(trace.summary())
        for on_finish in self.attachment.on_finish:
            on_finish(trace)
        return samples

    def predict_noise(self, executor, x, timestep, model_options=None, seed=None):
        """The corrected prediction of one evaluation."""
        run: _HostRun | None = executor.class_obj.model_options.get(KEY)
        model_options = {} if model_options is None else model_options
        if run is None:  # called by another node outside a sampling run
            return executor(x, timestep, model_options, seed)
        return run.predict(executor, x, timestep, model_options, seed)


class _HostRun:
    """One sampling run: the engine's state and the host objects it works on."""

    def __init__(self, attachment: _Attachment, guider, sigmas: Tensor, seed: int):
        self.attachment = attachment
        self.guider = guider
        patcher = guider.model_patcher
        sampling = patcher.get_model_object("model_sampling")
        self.engine = GuidedRun(
            attachment.conditions,
            attachment.settings.guidance,
            decode=self.decode,
            noise_level=lambda sigma: noise_level(sampling, sigma),
            percent_to_sigma=lambda percent: float(sampling.percent_to_sigma(percent)),
            sigmas=sigmas.tolist(),
            seed=seed,
        )
        self.engine.trace.settings["decoder"] = attachment.decoder.name

    def decode(self, latent: Tensor) -> Tensor:
        return self.attachment.decoder.decode(
            self.guider.model_patcher.model.process_latent_out, latent
        )

    def predict(self, executor, x: Tensor, timestep: Tensor, model_options: dict, seed) -> Tensor:
        """Plain where no condition guides, bit for bit; else corrected."""
        sigma = float(timestep.max())
        if not self.engine.guides(sigma):
            prediction = executor(x, timestep, model_options, seed)
            self.engine.trace.host_forwards += 1
            if self.attachment.settings.guidance.strength == 0.0:
                self.engine.measure(prediction, sigma)
            return prediction

        guider = self.guider
        modules = [guider.inner_model, *(p.model for p in _patchers(guider))]
        second_order = self.attachment.settings.guidance.second_order
        gap = _CfgGap() if self.attachment.settings.guidance.step_rule == "freedom" else None
        with differentiable(guider.model_patcher, modules, second_order=second_order):
            timestep = normal(timestep)
            options = differentiable_options(model_options)
            if gap is not None:
                options = gap.watch(options)
            return self.engine.predict(
                normal(x), sigma, lambda z: executor(z, timestep, options, seed), gap
            )

    def finish(self, samples: Tensor) -> Trace:
        """The trace, with the energies of the finished samples (in the VAE's scale)."""
        model = self.guider.model_patcher.model
        device = self.guider.model_patcher.load_device
        return self.engine.finish(model.process_latent_in(samples.to(device)))


class _CfgGap:
    """Remembers ``cfg * (D_cond - D_uncond)`` of the last prediction."""

    def __init__(self):
        self.value: Tensor | None = None

    def watch(self, model_options: dict) -> dict:
        """Model options whose last post-CFG function reports here."""
        options = comfy.model_patcher.create_model_options_clone(model_options)
        return comfy.model_patcher.set_model_options_post_cfg_function(options, self._after_cfg)

    def _after_cfg(self, args: dict) -> Tensor:
        uncond = args["uncond_denoised"]
        self.value = None
        if uncond is not None:  # cfg 1 skips the unconditional prediction
            gap = args["cond_denoised"] - uncond
            self.value = (args["cond_scale"] * gap).detach()
        return args["denoised"]

    def __call__(self) -> Tensor | None:
        return self.value


def noise_level(model_sampling, sigma: float) -> NoiseLevel:
    """``x = alpha * x0 + s * n`` of any of the host's model samplings at ``sigma``.

    The host's ``noise_scaling`` is linear in the image and the noise: its two coefficients are
    what it does to (0, 1) and (1, 0).
    """
    level = torch.tensor(sigma, dtype=torch.float32)
    zero, one = torch.zeros(1), torch.ones(1)
    return NoiseLevel(
        alpha=float(model_sampling.noise_scaling(level, zero.clone(), one.clone())),
        s=float(model_sampling.noise_scaling(level, one.clone(), zero.clone())),
    )


def _patchers(guider) -> list:
    """ModelPatchers the host loaded for this run (ControlNets, the guidance decoder)."""
    return [p for p in guider.loaded_models if hasattr(p, "model")]


def _seed(args: tuple, kwargs: dict) -> int:
    """The seed; by position the host passes denoise_mask, callback, disable_pbar, seed."""
    seed = kwargs.get("seed", args[3] if len(args) > 3 else None)
    return 0 if seed is None else int(seed)
