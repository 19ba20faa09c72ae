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
from dataclasses import asdict

import torch
from torch import Tensor

from .balance import balance
from .conditions import (
    Condition,
    active_conditions,
    begin_run,
    begin_step,
    with_distinct_names,
)
from .dependence import Tasks, condition_gradients, dependent_tasks
from .field import EnergyField, Meter, NotDifferentiable, Stage, Tape
from .norms import expand_like, gram, rms
from .settings import NO_BACKPROP, GuidanceSettings
from .steps import NoiseLevel, StepState, renoise, step
from .trace import StepRecord, Trace, cosines, rounded

__all__ = ["GuidedRun"]

log = logging.getLogger(__name__)

# Stages before the cut of each gradient path: what the pairs are differentiated through lies
# behind the cut, what one vector-Jacobian product serves lies before it (method section 4).
CUTS = {"full": 0, "prediction": 1, "no_backprop": 1, "image": 2, "image_no_backprop": 2}
# Typical spread of the variable behind the cut: the host's latents have about unit variance,
# an image in [0, 1] has about a quarter of that.
LATENT_SPREAD, IMAGE_SPREAD = 1.0, 0.25

# Relative difference below which two sigmas are the same step of the schedule.
SAME_SIGMA = 1e-4

Denoise = Callable[[Tensor], Tensor]
Decode = Callable[[Tensor], Tensor]


class GuidedRun:
    """The state of one sampling run under guidance: made at its start, dropped at its end.

    The caller provides gradients: ``predict`` must run with grad enabled, outside inference
    mode, on functions that are differentiable in their input.
    """

    def __init__(
        self,
        conditions: Sequence[Condition],
        settings: GuidanceSettings,
        *,
        decode: Decode,
        noise_level: Callable[[float], NoiseLevel],
        percent_to_sigma: Callable[[float], float],
        sigmas: Sequence[float] = (),
        seed: int = 0,
    ):
        """
        Args:
            conditions: in the order in which they were connected.
            decode: predicted clean latent ``[B, ...]`` to image ``[B, 3, H, W]`` in [0, 1].
            noise_level: noise model at a sigma.
            percent_to_sigma: a fraction of the sampling to its sigma, decreasing.
            sigmas: the sampler's schedule, decreasing.
            seed: of the random shifts and the re-noising.
        """
        self.conditions = begin_run(with_distinct_names(conditions))
        self.settings = settings
        self.decode = decode
        self.noise_level = noise_level
        self.percent_to_sigma = percent_to_sigma
        self.sigmas = tuple(sigmas)
        self.generator = torch.Generator().manual_seed(seed % 2**63)
        self.trace = Trace(asdict(settings))
        self._momentum: Tensor | None = None

    def step_at(self, sigma: float) -> int:
        """The sampler step that ``sigma`` belongs to; a solver may look between two sigmas."""
        reached = sum(s >= sigma * (1.0 - SAME_SIGMA) for s in self.sigmas)
        return max(0, reached - 1)

    def guides(self, sigma: float) -> bool:
        """Whether the prediction at ``sigma`` is to be corrected."""
        return (
            self.settings.strength > 0.0
            and self.step_at(sigma) % self.settings.guide_every == 0
            and bool(self._active(sigma))
        )

    def _active(self, sigma: float) -> tuple[Condition, ...]:
        return active_conditions(self.conditions, sigma, self.percent_to_sigma)

    def predict(
        self, x: Tensor, sigma: float, denoise: Denoise, cfg_gap: Callable | None = None
    ) -> Tensor:
        """The corrected prediction ``D'``, like x, without a gradient.

        Args:
            x: noisy latent ``[B, ...]``.
            sigma: its noise level, > 0.
            denoise: ``x -> D(x)``, called once per evaluation.
            cfg_gap: returns ``cfg * (D_cond - D_uncond)`` of the last call of denoise, or None;
                asked after the first one.
        """
        begin_step(self._active(sigma), self.step_at(sigma))
        repeats = self._repeats(sigma)
        level = self.noise_level(sigma)
        for repeat in range(repeats):
            corrected, prediction = self._guided(x, sigma, level, denoise, cfg_gap)
            if repeat < repeats - 1:
                x = self._travelled(x, corrected, prediction, sigma, level)
        return corrected

    @torch.no_grad()
    def measure(self, prediction: Tensor, sigma: float) -> None:
        """Record the energies of a prediction that is not corrected."""
        active = self._active(sigma)
        if not active:
            return
        started = time.perf_counter()
        meter = Meter()
        begin_step(active, self.step_at(sigma))
        energies = self._energies(prediction, active, meter)
        self._record(sigma, active, energies, meter, started)

    @torch.no_grad()
    def finish(self, latent: Tensor) -> Trace:
        """Record the energies of the finished clean latent and return the trace."""
        present = tuple(c for c in self.conditions if c.weight > 0.0)
        if present:
            begin_step(present, None)
            energies = self._energies(latent, present, Meter())
            self.trace.final = {
                c.name: rounded(energy) for c, energy in zip(present, energies, strict=True)
            }
        return self.trace

    def _energies(
        self, latent: Tensor, conditions: Sequence[Condition], meter: Meter
    ) -> list[Tensor]:
        image = Tape([Stage("decoder", self.decode)], latent, meter, track=False).output
        field = EnergyField([], conditions, meter)
        return [field.energy(j, image) for j in range(len(conditions))]

    def _guided(
        self,
        x: Tensor,
        sigma: float,
        level: NoiseLevel,
        denoise: Denoise,
        cfg_gap: Callable | None,
    ) -> tuple[Tensor, Tensor]:
        """The prediction with and without the correction."""
        started = time.perf_counter()
        meter = Meter()
        active = self._active(sigma)
        path = self.settings.gradient_path
        predictions: list[Tensor] = []
        gap: Tensor | None = None

        def remembered(z: Tensor) -> Tensor:
            nonlocal gap
            prediction = denoise(z)
            if not predictions:  # the one of x; the others are look-aheads
                predictions.append(prediction.detach())
                gap = cfg_gap and cfg_gap()
            return prediction

        try:
            direction, prediction, merit, record = self._direction(
                x, level, remembered, active, path, meter
            )
        except NotDifferentiable as stop:
            if stop.stage != "denoiser":
                raise
            path = "image_no_backprop" if path == "image" else "no_backprop"
            self._warn(
                "the model's prediction carries no gradient (cached or detached by another "
                f"node); guiding without the denoiser's Jacobian ({path}) instead"
            )
            direction, prediction, merit, record = self._direction(
                x, level, lambda _: predictions[0], active, path, meter
            )
            meter.forwards["denoiser"] -= 1  # that prediction was not computed again
        state = StepState(
            x,
            prediction,
            self._with_momentum(direction),
            level,
            merit,
            gap,
        )
        corrected = step(state, self.settings.step_rule, self.settings.strength)
        self._record(
            sigma,
            active,
            meter=meter,
            started=started,
            correction=rounded(rms(corrected - prediction)),
            path=path,
            **record,
        )
        return corrected, prediction

    def _direction(
        self,
        x: Tensor,
        level: NoiseLevel,
        denoise: Denoise,
        active: tuple[Condition, ...],
        path: str,
        meter: Meter,
    ) -> tuple[Tensor, Tensor, Tensor, dict]:
        """The balanced direction in x, the prediction, the merit and what to record."""
        stages = [Stage("denoiser", denoise), Stage("decoder", self.decode)]
        cut = CUTS[path]
        start, prediction = x, None
        if path in NO_BACKPROP:  # the prediction takes the place of x
            start = prediction = Tape(stages[:1], x, meter, track=False).output
            stages, cut = stages[1:], cut - 1
        before = Tape(stages[:cut], start, meter)
        field = EnergyField(
            stages[cut:],
            active,
            meter,
            shift=self._random_shift(),
            second_order=self.settings.second_order,
        )
        point = field.at(before.output)
        if prediction is None:
            prediction = (before.outputs + point.tape.outputs[1:])[1].detach()
        energies = [point.energies[j].detach() for j in range(len(active))]
        own = condition_gradients(point, [c.weight for c in active])
        for j in (~own.valid).all(1).nonzero().flatten().tolist():
            self._warn(f"{active[j].name} has no finite gradient and was left out of a step")
        tasks = dependent_tasks(
            field,
            point,
            own,
            dependence=self.settings.dependence,
            tasks=self.settings.tasks,
            order=self.settings.order,
            look_ahead=self._look_ahead(path, level),
        )
        del point
        direction, weights = self._combine(tasks)
        direction = before.pull_back(direction)
        merit = sum(scale * energy for scale, energy in zip(own.scales, energies, strict=True))
        record = {
            "energies": energies,
            "cosines": cosines([g.detach() for g in own.vectors]),
            "balance": rounded(weights),
            "order": tasks.ranks.T.tolist(),
        }
        return direction.detach(), prediction, merit, record

    def _combine(self, tasks: Tasks) -> tuple[Tensor, Tensor]:
        """The balanced direction, like u, and the weights ``[B, T]`` of the tasks."""
        stacked = torch.stack(tasks.vectors, dim=1)  # [B, T, ...]
        finite = torch.isfinite(stacked).flatten(2).all(2).cpu()
        stacked = torch.nan_to_num(stacked, 0.0, 0.0, 0.0)  # 0 * NaN would not be 0
        weights = balance(
            gram(stacked), tasks.valid & finite, self.settings.balance, self.settings.cagrad_c
        )
        return torch.einsum("bt,bt...->b...", weights.to(stacked), stacked), weights

    def _look_ahead(self, path: str, level: NoiseLevel) -> float:
        """``k = kappa * s`` in x (method section 2). Behind the denoiser the same share of what is
        still uncertain there."""
        if path == "full":
            return self.settings.look_ahead * level.s
        spread = LATENT_SPREAD if CUTS[path] == 1 else IMAGE_SPREAD
        return self.settings.look_ahead * spread * level.uncertain

    def _random_shift(self) -> tuple[int, int]:
        reach = self.settings.random_shift
        if reach == 0:
            return (0, 0)
        rows, columns = torch.randint(-reach, reach + 1, (2,), generator=self.generator).tolist()
        return (rows, columns)

    def _with_momentum(self, direction: Tensor) -> Tensor:
        share = self.settings.momentum
        if share == 0.0:
            return direction
        size = rms(direction)
        unit = direction / expand_like(size.clamp_min(torch.finfo(size.dtype).tiny), direction)
        if self._momentum is None:
            self._momentum = torch.zeros_like(unit)
        self._momentum = share * self._momentum + (1.0 - share) * unit
        return self._momentum * expand_like(size, direction)

    def _repeats(self, sigma: float) -> int:
        low = self.percent_to_sigma(self.settings.travel_end)
        high = self.percent_to_sigma(self.settings.travel_start)
        return self.settings.time_travel if low <= sigma <= high else 1

    def _travelled(
        self, x: Tensor, corrected: Tensor, prediction: Tensor, sigma: float, level: NoiseLevel
    ) -> Tensor:
        """A noisy latent of the corrected prediction, at the noise level of x."""
        fresh = self.settings.fresh_noise
        if fresh is None:  # a step to the schedule's next level, and up again
            lower = [s for s in self.sigmas if s < sigma * (1.0 - SAME_SIGMA)]
            kept = self.noise_level(max(lower, default=0.0)).s / level.s
            noise = level.noise(x, corrected)
        else:  # what the model takes for noise: the correction is no part of it, and stays whole
            kept = (1.0 - fresh) ** 0.5
            noise = level.noise(x, prediction)
        return renoise(corrected, noise, level, kept, self.generator)

    def _warn(self, message: str) -> None:
        if self.trace.warn_once(message):
            log.warning("Z-Magic: %s", message)

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
