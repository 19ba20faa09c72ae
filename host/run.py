"""One sampling run in the host: the engine's state and the host objects that it works on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import comfy.sd
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..guidance.conditions import Condition
from ..guidance.engine import GuidedRun
from ..guidance.evaluation import DENOISER, NotDifferentiable
from ..guidance.noise_run import NoiseRun
from ..guidance.noise_search import NoiseSearch
from ..guidance.random_streams import RandomStreams
from ..guidance.schedule import NoiseLevel, Schedule, part_between
from ..guidance.settings import GuidanceSettings
from ..guidance.trace import Trace
from .batch_index import batch_indices
from .checkpointing import Call, plainly
from .controls import control_networks
from .decoders import Decoder
from .evaluations import CfgGap, Evaluations, prediction_of
from .gradients import differentiable
from .last_runs import LastRuns
from .memory import RunMemory, evaluations_of, need_of
from .model_calls import ModelCalls
from .progress import RunProgress
from .tiles import in_tiles

__all__ = ["KEY", "Attachment", "HostRun", "HostSettings", "noise_level", "schedule_of"]

KEY = "zmagic"
# Noise that is left in a latent which still counts as clean, in units of the latent's own spread.
LEAST_NOISE = 0.01


@dataclass(frozen=True)
class HostSettings:
    """Guidance settings, the kind of decoder that makes the image for the conditions, and memory.

    Args:
        memory: ``fast``, where blocks of the models keep all that a gradient needs; ``small``,
            where they keep only their inputs and run a second time; ``auto``: as memory allows.
        notes: what the report of every run tells about the settings.
    """

    guidance: GuidanceSettings = GuidanceSettings()
    decoder: str = "auto"
    memory: str = "auto"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attachment:
    """What a MODEL carries: immutable, because the host caches and clones models."""

    conditions: tuple[Condition, ...]
    settings: HostSettings
    vae: comfy.sd.VAE | None
    decoder: Decoder
    on_finish: tuple[Callable[[Trace], None], ...] = ()
    on_look: tuple[Callable[[str], None], ...] = ()
    shapes: set[tuple[int, ...]] = field(default_factory=set)  # of the latents sampled so far
    # The draws of runs that handed their noise on, by the noise level at which they ended.
    handed_on: dict[str, RandomStreams] = field(default_factory=dict)
    runs: LastRuns = field(default_factory=LastRuns)
    # The runs of the guided models that this one was made of: its own are theirs, too.
    runs_before: tuple[LastRuns, ...] = ()
    measure_steps: bool = True  # without guidance: every step, or the finished picture alone
    search: NoiseSearch | None = None  # in place of guidance: the noise is searched
    on_noise: Callable[[Tensor], None] | None = None  # told the noise that a search found
    steps: int | None = None  # of the whole sampling, of which runs make the first ones


class HostRun:
    """One sampling run: the engine's state and the host objects it works on."""

    def __init__(self, attachment: Attachment, guider, noise: Tensor, sigmas: Tensor, seed: int):
        self.attachment = attachment
        self.guider = guider
        patcher = guider.model_patcher
        sampling = patcher.get_model_object("model_sampling")
        self.evaluations: Evaluations | None = None  # of the prediction that is being made
        self.calls = ModelCalls(patcher.get_model_object("diffusion_model"))
        self.progress = self._progress(len(sigmas) - 1)
        self.engine: GuidedRun = self._engine(
            decode=self.decode,
            schedule=self._schedule(sampling, noise, sigmas),
            streams=self._streams(noise, sigmas, seed),
            check_slope=True,
            gradients=self.gradients,
            count_operations=not (self.calls.compiled or _compiles(guider.model_options)),
            save_memory=lambda: self.memory.save(),
            watch=self.progress.watch,
            measure_steps=attachment.measure_steps,
        )
        self._call: Call = plainly  # as a block, where blocks save only their inputs
        self.searching = False  # while pictures are made to look at, and not the one to keep
        self.engine.trace.notes += attachment.settings.notes
        self.engine.trace.settings["decoder"] = attachment.decoder.name(noise.shape)
        self.memory = self._memory(noise.shape)

    def _schedule(self, sampling, noise: Tensor, sigmas: Tensor) -> Schedule:
        """The schedule of this run, and which part of the whole sampling it is."""
        schedule = schedule_of(sampling, sigmas)
        if self.attachment.steps is not None:
            made = min(1.0, (len(sigmas) - 1) / self.attachment.steps)
            return replace(schedule, part=(0.0, made))
        ends = (schedule.sigmas[0], schedule.sigmas[-1])
        goes_on = not noise.any()  # the latent has its noise already, from an earlier part
        part = part_between(*ends, schedule.sigma_at, goes_on=goes_on)
        return replace(schedule, part=part, is_rough=True)

    def _engine(self, **options) -> GuidedRun:
        attachment = self.attachment
        guidance, search = attachment.settings.guidance, attachment.search
        if search is None:
            return GuidedRun(attachment.conditions, guidance, **options)
        return NoiseRun(attachment.conditions, guidance, search, **options)

    def _progress(self, steps: int) -> RunProgress:
        attachment = self.attachment
        if attachment.search is None:
            return RunProgress(steps, attachment.on_look)
        return RunProgress(attachment.search.evaluations, attachment.on_look, "noise")

    def _memory(self, shape: tuple[int, ...]) -> RunMemory:
        """The choice between fast and small, and what the host is to make room for."""
        guidance, wanted = self.engine.settings, self.attachment.settings.memory
        evaluations = evaluations_of(self.guider, shape) if guidance.backpropagates else 0
        if self.attachment.search is not None:  # one gradient through all steps
            evaluations *= len(self.engine.schedule.sigmas) - 1
        model = self.guider.model_patcher.model
        need = need_of(model, self.attachment.decoder, shape, evaluations, guidance.decodings)
        if wanted == "small" and guidance.second_order:
            self.engine.warn(
                "memory 'small' has no effect with dependence 'exact', which differentiates twice; "
                "finite_difference needs less memory"
            )
        tiles = self.attachment.decoder.has_tiles(shape)
        return RunMemory(wanted, need, possible=not guidance.second_order, tiles=tiles)

    def _streams(self, noise: Tensor, sigmas: Tensor, seed: int) -> RandomStreams:
        """The run's draws; those of the run that it goes on with, if it has no seed of its own."""
        known = self.attachment.handed_on
        without_seed = seed == 0 and not noise.any()  # as Disable Noise leaves it
        before = known.get(_level(sigmas[0])) if without_seed else None
        streams = before or RandomStreams(seed, batch_indices(noise, seed))
        if float(sigmas[-1]) > 0.0:
            known[_level(sigmas[-1])] = streams
        return streams

    def decode(self, latent: Tensor) -> Tensor:
        """The picture of a latent, in tiles where memory has shown to be that short."""
        scaled = self.guider.model_patcher.model.process_latent_out
        if not self.memory.tiled:
            return self.attachment.decoder.decode(scaled, latent)
        return self.attachment.decoder.decode(scaled, latent, partial(in_tiles, call=self._call))

    def predict(self, executor, x: Tensor, timestep: Tensor, model_options: dict, seed) -> Any:
        """Predict: plainly where no condition guides, bit for bit; else with the correction.

        Returns:
            What the executor returns, a tensor or several of which the first is the prediction.
        """
        sigma = float(timestep.max())
        self._watch_shape(x)
        if self.searching:
            return self._searched(executor, x, timestep, model_options, seed)
        if not self.engine.guides(sigma):
            return self._plain(executor, x, timestep, model_options, seed, sigma)
        wanted = self.attachment.settings.guidance.step_rule == "freedom"
        gap = CfgGap() if wanted else None
        denoise = Evaluations(executor, timestep, model_options, seed, self.calls, gap)
        self.evaluations = denoise
        prediction = self.engine.predict(x, sigma, denoise, gap, lambda: self.calls.reused)
        return denoise.answer(prediction)

    @contextmanager
    def gradients(self) -> Iterator[None]:
        """Make the context in which the models of this run can be differentiated."""
        guider = self.guider
        modules = [guider.inner_model, *(p.model for p in _patchers(guider))]
        modules += control_networks(getattr(guider, "conds", {}))  # some have no patcher
        second_order = self.engine.settings.second_order
        small = self.memory.is_small(guider.model_patcher.load_device)
        predicting = self.evaluations
        with (
            differentiable(
                guider.model_patcher, modules, second_order=second_order, checkpoint=small
            ) as call,
            predicting.with_gradients(run_again=small) if predicting else nullcontext(),
        ):
            before, self._call = self._call, call
            try:
                yield
            finally:
                self._call = before

    def _searched(self, executor, x: Tensor, timestep: Tensor, model_options: dict, seed) -> Any:
        """One step of a picture that is looked at, differentiable where gradients are on."""
        throw_exception_if_processing_interrupted()
        evaluation = Evaluations(executor, timestep, model_options, seed, self.calls, None)
        self.engine.predicted()
        if not torch.is_grad_enabled():
            return evaluation.answer(evaluation(x))
        with evaluation.with_gradients():
            prediction = evaluation(x)
        if self.calls.detached:
            raise NotDifferentiable(DENOISER, "a part of the model was computed without gradients")
        if self.calls.reused:
            self.engine.warn(
                "another node answered in the model's place from its cache, whose gradient is "
                "another: leave that node out of a search"
            )
        return evaluation.answer(prediction)

    def _plain(self, executor, x, timestep, model_options, seed, sigma: float) -> Any:
        if self.calls.compiled or _compiles(model_options):
            answer = executor(x, timestep, model_options, seed)
            self.engine.trace.plain_forwards += 1
        else:
            with self.calls.evaluation():
                answer = executor(x, timestep, model_options, seed)
            self.engine.trace.plain_forwards += not self.calls.reused
        if self.engine.measures:
            self.engine.measure(prediction_of(answer), sigma)
        return answer

    def _watch_shape(self, x: Tensor) -> None:
        """One map of the whole picture does not fit its tiles, nor the crop of a detailer."""
        shape = tuple(x.shape[2:])
        shapes = self.attachment.shapes
        maps = [c.name for c in self.engine.conditions if _describes_places(c)]
        if shapes and shape not in shapes and maps:
            sizes = ", ".join("x".join(map(str, each)) for each in sorted(shapes))
            self.engine.warn(
                f"this guided model now samples a latent of {'x'.join(map(str, shape))}, before "
                f"of {sizes}: what {' and '.join(maps)} asks for is stretched over it. That is "
                "right for the whole picture in another size; for tiles or the crop of a "
                "detailer use a model without these conditions"
            )
        shapes.add(shape)

    def finish(self, samples: Tensor) -> Trace:
        """Complete the trace by the energies of the finished samples (in the VAE's scale)."""
        model = self.guider.model_patcher.model
        device = self.guider.model_patcher.load_device
        self.engine.trace.settings["memory"] = self.memory.taken
        self._warn_of_unasked_steps()
        schedule = self.engine.schedule
        left = schedule.noise_level(schedule.sigmas[-1]).posterior_spread
        latent = model.process_latent_in(samples.to(device))
        return self.engine.finish(latent, clean=left <= LEAST_NOISE)

    def _warn_of_unasked_steps(self) -> None:
        """Say where a node in front of this one answered in the model's place."""
        wrappers = self.guider.model_options.get("transformer_options", {}).get("wrappers", {})
        by_key = wrappers.get(WrappersMP.PREDICT_NOISE, {})
        if not any(by_key[key] for key in by_key if key != KEY):
            return
        sigmas = [s for s in self.engine.schedule.sigmas if s > 0.0 and self.engine.guides(s)]
        steps = {self.engine.step_at(sigma) for sigma in sigmas}
        missed = steps - {record.step for record in self.engine.trace.steps}
        if missed:
            self.engine.warn(
                f"{len(missed)} of {len(steps)} steps were not guided: another node answered them "
                "from its cache before Z-Magic was asked.\nConnect that node behind Z-Magic (its "
                "model input to Z-Magic's output), or leave it out"
            )


def _level(sigma: Tensor) -> str:
    """A noise level as two runs that meet at it both know it."""
    return f"{float(sigma):.6g}"


def _compiles(model_options: dict) -> bool:
    """Whether the host's own compiling wrapper, of the same name as its package, is there."""
    wrappers = model_options.get("transformer_options", {}).get("wrappers", {})
    return any("torch.compile" in kind for kind in wrappers.values())


def _describes_places(condition: Condition) -> bool:
    masked = isinstance(condition.region, Tensor)  # one that follows the picture is not stretched
    return masked or getattr(condition.energy, "describes_places", False)


def schedule_of(model_sampling, sigmas: Tensor) -> Schedule:
    """Make the schedule of a sampling by the host.

    Windows are fractions of the model's training schedule, as in the host's own nodes.

    Args:
        model_sampling: the model sampling of the host's model.
        sigmas: the noise levels of the sampler, ``[steps + 1]``.
    """
    return Schedule(
        tuple(sigmas.tolist()),
        lambda sigma: noise_level(model_sampling, sigma),
        lambda fraction: float(model_sampling.percent_to_sigma(fraction)),
    )


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
