"""One guided step, read like the method: energies, pair gradients, balance, step.

prediction  D = denoise(x)
g_i         = -lambda_i grad E_i                      guidance of each condition
tasks       = g_i(x) + (I + k H_i) g_j(x_i)           pairs, or their sums by rows
d           = CAGrad(tasks)
D'          = D + strength * RMS(D - x / alpha) * d / RMS(d)
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace

import torch
from torch import Tensor

from .conditions import (
    SAME_SIGMA,
    Condition,
    active_conditions,
    begin_run,
    begin_step,
    lies_between,
    reports,
    with_distinct_names,
)
from .denoiser import Denoise, Denoiser
from .direction import Decode, Direction, Look, balanced_direction
from .evaluation import DENOISER, ERRORS, EnergyField, Meter, NotDifferentiable, Stage, Tape
from .influence import Influence
from .jacobian_check import PullBack, has_right_slope
from .norms import expand_like, rms
from .random_streams import RandomStreams
from .schedule import NoiseLevel, Schedule
from .settings import NO_BACKPROP, PRESETS, GuidanceSettings
from .steps import StepState, renoise, step
from .trace import StepRecord, Trace, rounded
from .wording import printable

__all__ = ["GuidedRun"]

log = logging.getLogger(__name__)

# How the error of a device without memory is called by PyTorch.
SHORT_OF_MEMORY = "OutOfMemoryError"


class GuidedRun:
    """The state of one sampling run under guidance: made at its start, dropped at its end.

    The caller provides gradients: ``denoise``, ``decode`` and the energies must be differentiable
    in their input inside ``gradients``.
    """

    def __init__(
        self,
        conditions: Sequence[Condition],
        settings: GuidanceSettings = PRESETS["balanced"],
        *,
        decode: Decode,
        schedule: Schedule,
        streams: RandomStreams | None = None,
        check_slope: bool = False,
        gradients: Callable[[], AbstractContextManager] = torch.enable_grad,
    ):
        """
        Args:
            conditions: in the order in which they were connected.
            decode: predicted clean latent ``[B, ...]`` to image ``[B, 3, H, W]`` in [0, 1].
            schedule: the noise levels of the sampler.
            streams: of the random shifts, crops and the re-noising; None: those of seed 0.
            check_slope: make sure once, by one more forward, that the denoiser's gradient is the
                slope of its prediction; guide without its Jacobian if it is not.
            gradients: makes the context in which gradients are taken, entered once for each look.
                A denoiser without gradients runs outside it, as in plain sampling.
        """
        self.conditions = begin_run(with_distinct_names(conditions))
        self.settings = settings
        self.decode = decode
        self.schedule = schedule
        self.streams = streams or RandomStreams()
        self.gradients = gradients
        self.trace = Trace(asdict(settings))
        self._influence = Influence()
        self._momentum: Tensor | None = None
        self._check_slope = check_slope  # until it has been done
        self._without_jacobian = False  # the model cannot be differentiated in this run

    def step_at(self, sigma: float) -> int:
        """The sampler step that ``sigma`` belongs to; a solver may look between two sigmas."""
        reached = sum(s >= sigma * (1.0 - SAME_SIGMA) for s in self.schedule.sigmas)
        return max(0, reached - 1)

    def guides(self, sigma: float) -> bool:
        """Whether the prediction at ``sigma`` is to be corrected."""
        return (
            self.settings.strength > 0.0
            and self._is_guided_step(sigma)
            and bool(self._active(sigma))
        )

    def _is_guided_step(self, sigma: float) -> bool:
        return self.step_at(sigma) % self.settings.guide_every == 0

    def _active(self, sigma: float) -> tuple[Condition, ...]:
        return active_conditions(self.conditions, sigma, self.schedule.sigma_at)

    def predict(
        self,
        x: Tensor,
        sigma: float,
        denoise: Denoise,
        cfg_gap: Callable[[], Tensor | None] | None = None,
        reused: Callable[[], bool] | None = None,
    ) -> Tensor:
        """The corrected prediction ``D'``, like x, without a gradient.

        Where nothing guides (``guides``) it is ``D(x)`` itself, bit for bit.

        Args:
            x: noisy latent ``[B, ...]``.
            sigma: its noise level, > 0.
            denoise: ``x -> D(x)``, called once per evaluation.
            cfg_gap: returns ``cfg * (D_cond - D_uncond)`` of the last call of denoise, or None;
                asked after the first one.
            reused: whether the last call of denoise was answered without the model, by a cache
                of another node; None: never.
        """
        if not self.guides(sigma):
            return self._plain(x, sigma, denoise)
        self._begin_step(self._active(sigma), sigma)
        corrected, pulled = self._repeated(x, sigma, denoise, cfg_gap, reused)
        if not self._slope_is_right(pulled, denoise, reused):
            corrected, _ = self._repeated(x, sigma, denoise, cfg_gap, reused)
        return corrected

    @torch.no_grad()
    def _plain(self, x: Tensor, sigma: float, denoise: Denoise) -> Tensor:
        """The prediction as it is, its energies measured if the run only measures."""
        prediction = denoise(x)
        self.trace.host_forwards += 1
        if self.settings.strength == 0.0:
            self.measure(prediction, sigma)
        return prediction

    def _repeated(
        self,
        x: Tensor,
        sigma: float,
        denoise: Denoise,
        cfg_gap: Callable | None,
        reused: Callable | None,
    ) -> tuple[Tensor, PullBack | None]:
        """The corrected prediction after all repeats, and a product through the denoiser."""
        level = self.schedule.noise_level(sigma)
        corrected = prediction = x
        pulled = None
        for repeat in range(self._repeats(sigma)):
            if repeat > 0:
                x = self._travelled(x, corrected, prediction, sigma, level, repeat)
            denoiser = Denoiser(denoise, cfg_gap, reused)
            corrected, prediction, pulled = self._guided(x, sigma, level, denoiser, repeat)
            if denoiser.reused_first:
                break  # a cache would answer the next repeat with the same old prediction
        return corrected, pulled

    @torch.no_grad()
    def measure(self, prediction: Tensor, sigma: float) -> None:
        """Record the energies of a prediction that is not corrected."""
        active = self._active(sigma)
        if not active:
            return
        started = time.perf_counter()
        meter = Meter()
        self._warn_if_not_finite(prediction)
        self._begin_step(active, sigma)
        energies = self._energies(prediction, active, meter)
        self._record(sigma, active, energies, meter, started)

    @torch.no_grad()
    def finish(self, latent: Tensor, *, clean: bool = True) -> Trace:
        """Record what is known at the end of the run and return the trace.

        Args:
            latent: what the sampler returned, ``[B, ...]``.
            clean: whether it is free of noise; the energies of a noisy latent mean nothing.
        """
        self._report()
        present = tuple(c for c in self.conditions if c.weight > 0.0)
        if not clean:
            self.trace.notes.append(
                "the latent still has noise (another sampler goes on with it): final energies "
                "are those of the sampler that ends"
            )
        elif present:
            begin_step(present, None)
            energies = self._energies(latent, present, Meter())
            self.trace.final = {
                c.name: rounded(energy) for c, energy in zip(present, energies, strict=True)
            }
        return self.trace

    def _report(self) -> None:
        """Say which conditions had no effect, and what the energies have to say."""
        self.trace.notes += self.settings.without_effect
        self.trace.notes += reports(self.conditions, "notes")
        if self.settings.strength == 0.0:
            self.trace.notes.append("strength is 0: energies were measured and nothing was guided")
        else:
            sigmas = [s for s in self.schedule.sigmas if s > 0.0 and self._is_guided_step(s)]
            warnings, notes = self._influence.of_run(
                self.conditions, sigmas, self.schedule.sigma_at
            )
            self.trace.notes += notes
            for sentence in warnings:
                self.warn(sentence)
            if self.settings.time_travel > 1 and all(self._repeats(s) == 1 for s in sigmas):
                self.warn(
                    f"time_travel has no effect: its window from {self.settings.travel_start:g} to "
                    f"{self.settings.travel_end:g} holds no guided step of this run"
                )
        for sentence in reports(self.conditions, "warnings"):
            self.warn(sentence)

    def _begin_step(self, active: tuple[Condition, ...], sigma: float) -> None:
        begin_step(active, self.step_at(sigma), self.streams.step_seed(sigma))

    def _energies(
        self, latent: Tensor, conditions: Sequence[Condition], meter: Meter
    ) -> list[Tensor]:
        image = Tape([Stage("decoder", self.decode)], latent, meter, track=False).output
        field = EnergyField([], conditions, meter)
        return [field.energy(j, image) for j in range(len(conditions))]

    def _guided(
        self, x: Tensor, sigma: float, level: NoiseLevel, denoiser: Denoiser, repeat: int
    ) -> tuple[Tensor, Tensor, PullBack | None]:
        """The prediction with and without the correction, and a product through the denoiser."""
        started = time.perf_counter()
        meter = Meter()
        active = self._active(sigma)
        path = self.settings.gradient_path
        if self._without_jacobian:
            path = _without_jacobian(path)
        look = Look(x, level, active, self._random_shifts(len(x), sigma, repeat), meter)
        made = None
        try:
            made = self._direction(look, denoiser, path)
        except NotDifferentiable as stop:
            if stop.stage != DENOISER or path in NO_BACKPROP:
                raise
            path = _without_jacobian(path)
            self._say_without_jacobian(stop, path)
        if made is None:  # out here the memory of the failed pass is free again
            meter.forwards[DENOISER] -= denoiser.first is not None  # it is not computed again
            made = self._direction(look, denoiser.again, path)
        if denoiser.reused_first:
            meter.forwards[DENOISER] -= 1
            meter.forwards[f"{DENOISER} reused"] += 1
        for sentence in self._influence.of_step(active, made.own):
            self.warn(sentence)
        self._warn_if_not_finite(made.prediction)
        state = StepState(
            x,
            made.prediction,
            self._with_momentum(made.direction),
            level,
            made.merit,
            denoiser.gap,
        )
        corrected = step(state, self.settings.step_rule, self.settings.strength)
        self._record(
            sigma,
            active,
            meter=meter,
            started=started,
            correction=rounded(rms(corrected - made.prediction)),
            path=path,
            **made.record,
        )
        return corrected, made.prediction, made.pulled

    def _direction(self, look: Look, denoise: Denoise, path: str) -> Direction:
        """The balanced direction; the denoiser has gradients only where the path needs them."""
        if path not in NO_BACKPROP:
            with self.gradients():
                return balanced_direction(look, denoise, self.decode, self.settings, path)
        with torch.no_grad():
            look.meter.forwards[DENOISER] += 1
            prediction = denoise(look.x)
        with self.gradients():
            look = replace(look, prediction=prediction.detach().clone())
            return balanced_direction(look, denoise, self.decode, self.settings, path)

    def _slope_is_right(
        self, pulled: PullBack | None, denoise: Denoise, reused: Callable | None
    ) -> bool:
        """Once a run, after the first step with a gradient through the denoiser."""
        if not self._check_slope or pulled is None:
            return True
        meter = self.trace.extra_forwards
        meter[f"{DENOISER} check"] = meter.get(f"{DENOISER} check", 0) + 1
        try:
            with self.gradients():  # where the prediction was made that it is compared with
                right = has_right_slope(pulled, denoise)
        except ERRORS:  # of a node that cannot do without gradients here: it had them before
            log.debug("the slope could not be checked", exc_info=True)
            right = True
        if reused is not None and reused():  # a cache answered: this says nothing of the model
            return True
        self._check_slope = False
        if not right:
            wrong = "its gradient is not the slope of its prediction"
            path = _without_jacobian(self.settings.gradient_path)
            self._say_without_jacobian(NotDifferentiable(DENOISER, wrong), path)
        return right

    def _say_without_jacobian(self, stop: NotDifferentiable, path: str) -> None:
        if stop.cause is None:
            self.warn(
                "the model's prediction carries no gradient (cached or detached by another "
                f"node); guiding without the denoiser's Jacobian ({path}) instead"
            )
            return
        self._without_jacobian = True
        if stop.cause.startswith(SHORT_OF_MEMORY):
            self.warn(
                "not enough memory for the gradient: choose the preset 'fast', which needs none, "
                f"or a smaller latent; guiding without the denoiser's Jacobian ({path}) instead"
            )
            return
        self.warn(
            "the model cannot be differentiated here (a patch of another node is the usual "
            f"reason); guiding without the denoiser's Jacobian ({path}) instead: {stop.cause}"
        )

    def _random_shifts(self, batch: int, sigma: float, repeat: int) -> list[tuple[int, int]]:
        reach = self.settings.random_shift
        return self.streams.shifts(batch, reach, sigma, repeat) if reach else []

    def _with_momentum(self, direction: Tensor) -> Tensor:
        share = self.settings.momentum
        if share == 0.0:
            return direction
        size = rms(direction)
        unit = direction / expand_like(size.clamp_min(torch.finfo(size.dtype).tiny), direction)
        if self._momentum is None or self._momentum.shape != unit.shape:  # another tile or batch
            self._momentum = torch.zeros_like(unit)
        self._momentum = share * self._momentum + (1.0 - share) * unit
        return self._momentum * expand_like(size, direction)

    def _repeats(self, sigma: float) -> int:
        low = self.schedule.sigma_at(self.settings.travel_end)
        high = self.schedule.sigma_at(self.settings.travel_start)
        return self.settings.time_travel if lies_between(sigma, low, high) else 1

    def _travelled(
        self,
        x: Tensor,
        corrected: Tensor,
        prediction: Tensor,
        sigma: float,
        level: NoiseLevel,
        repeat: int,
    ) -> Tensor:
        """A noisy latent of the corrected prediction, at the noise level of x."""
        fresh = self.settings.fresh_noise
        if fresh is None:  # a step to the schedule's next level, and up again
            lower = [s for s in self.schedule.sigmas if s < sigma * (1.0 - SAME_SIGMA)]
            kept = self.schedule.noise_level(max(lower, default=0.0)).s / level.s
            noise = level.noise(x, corrected)
        else:  # what the model takes for noise: the correction is no part of it, and stays whole
            kept = (1.0 - fresh) ** 0.5
            noise = level.noise(x, prediction)
        return renoise(corrected, noise, level, kept, self.streams.normal(x, sigma, repeat))

    def warn(self, message: str) -> None:
        """Keep a warning for the report and log it, once a run."""
        if self.trace.warn_once(message):
            log.warning("Z-Magic: %s", printable(message))

    def _warn_if_not_finite(self, prediction: Tensor) -> None:
        finite = torch.isfinite(prediction).flatten(1).all(1).tolist()
        broken = ", ".join(str(b + 1) for b, is_finite in enumerate(finite) if not is_finite)
        if broken:
            self.warn(
                f"the model's prediction is not finite (NaN or infinite) for picture {broken} of "
                f"{len(finite)}: it is not guided there"
            )

    def _record(
        self,
        sigma: float,
        active: tuple[Condition, ...],
        energies: list[Tensor],
        meter: Meter,
        started: float,
        **details,
    ) -> None:
        self.trace.steps.append(
            StepRecord(
                step=self.step_at(sigma),
                sigma=rounded(sigma),
                conditions=[c.name for c in active],
                energies=[rounded(energy) for energy in energies],
                forwards=dict(meter.forwards),
                backwards=dict(meter.backwards),
                energy_calls=meter.energy_calls,
                seconds=rounded(time.perf_counter() - started),
                **details,
            )
        )


def _without_jacobian(path: str) -> str:
    return "image_no_backprop" if path.startswith("image") else "no_backprop"
