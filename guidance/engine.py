"""One guided step, read like the method: energies, pair gradients, balance, step.

prediction  D = denoise(x)
g_i         = -lambda_i grad E_i                      guidance of each condition
tasks       = g_i(x) + (I + k H_i) g_j(x_i)           pairs, or their sums by rows
d           = CAGrad(tasks)                           the default balance
D'          = D + strength * posterior spread * d / RMS(d)    step rule ``posterior``, the default
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .calibration import RunStrength
from .conditions import (
    Condition,
    active_conditions,
    begin_run,
    begin_step,
    lies_within,
    with_distinct_names,
)
from .correction import corrected
from .denoiser import Denoise, Denoiser, Model
from .denoiser_gradient import SaveMemory
from .direction import Decode, Direction, Look
from .directions import Directions
from .evaluation import DENOISER, EnergyField, Meter, Stage, Tape
from .jacobian_check import PullBack
from .momentum import Momentum
from .neighborhood import neighbors
from .norms import rms
from .operations import RunCost
from .progress import Pace, Watch
from .random_streams import RandomStreams
from .run_report import RunReport
from .schedule import SAME_SIGMA, NoiseLevel, Schedule
from .settings import NO_BACKPROP, PRESETS, GuidanceSettings
from .sphere import Landing
from .steps import StepState
from .time_travel import TimeTravel
from .trace import Trace, rounded
from .unseen import measured, seen_alone, unseen

__all__ = ["GuidedRun"]


@dataclass(frozen=True)
class _Evaluated:
    """One evaluation: the prediction before and after its correction, and how it was made.

    ``pulled`` is a product through the denoiser, None without its Jacobian; ``reused`` tells that
    a cache of other code answered in the model's place.
    """

    prediction: Tensor
    corrected: Tensor
    pulled: PullBack | None
    reused: bool


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
        count_operations: bool = True,
        save_memory: SaveMemory | None = None,
        watch: Watch | None = None,
        measure_steps: bool = True,
    ):
        """
        Args:
            conditions: the conditions, in the order in which they were connected.
            settings: how to guide.
            decode: takes a predicted clean latent ``[B, ...]`` to images ``[B, 3, H, W]`` in
                [0, 1].
            schedule: the noise levels of the sampler.
            streams: the random draws of shifts, crops and re-noising; None: those of seed 0.
            check_slope: make sure once, by one more forward, that the denoiser's gradient is the
                slope of its prediction; guide without its Jacobian if it is not.
            gradients: makes the context in which gradients are taken, entered once for each look.
                A denoiser without gradients runs outside it, as in plain sampling.
            count_operations: whether the report tells what guidance costs in plain runs; not for
                code that is compiled while it runs.
            save_memory: asked when a look ran out of memory, before the denoiser's Jacobian is
                given up: lets later looks take less, and returns the words for what is taken
                instead; None: nothing is left to save.
            watch: what is told of the run while it goes on; None: nobody.
            measure_steps: whether a run of strength 0 measures the energies of every step, and
                not those of the finished picture alone.
        """
        self.conditions = begin_run(with_distinct_names(conditions))
        self.settings = settings
        self.decode = decode
        self.schedule = schedule
        self.streams = streams or RandomStreams()
        self._gradients, self._save_memory = gradients, save_memory
        self._measure_steps = measure_steps
        self._steps = len(schedule.sigmas) - 1
        self._watch = watch or Watch()
        self._pace = Pace(self._watch.working)
        self._report = RunReport(settings, self._watch.looked)
        self._travel = TimeTravel(settings, schedule, self.streams)
        self._cost = RunCost(count_operations)
        self._directions = Directions(
            settings,
            gradients=gradients,
            check_slope=check_slope,
            save_memory=save_memory,
            cost=self._cost,
            report=self._report,
        )
        self._momentum = Momentum(settings.momentum)
        aims = settings.step_rule == "spherical"
        self._landing = Landing(schedule, self.streams) if aims else None
        self._strength = RunStrength(settings, self._report)
        self._guided_steps = 0  # predictions that were corrected, however often each was repeated

    @property
    def trace(self) -> Trace:
        """The record of the run so far."""
        return self._report.trace

    def warn(self, message: str) -> None:
        """Keep a warning for the report and log it, once a run."""
        self._report.warn(message)

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

    @property
    def measures(self) -> bool:
        """Whether the energies of predictions that nothing corrects are to be measured."""
        return self.settings.strength == 0.0 and self._measure_steps

    def _is_guided_step(self, sigma: float) -> bool:
        settings = self.settings
        window = (settings.guide_start, settings.guide_end)
        inside = lies_within(sigma, *window, self.schedule.sigma_at)
        step = self.step_at(sigma)
        early = self.schedule.is_within(step, settings.guided_share)
        return inside and early and step % settings.guide_every == 0

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
            sigma: the noise level of x, > 0.
            denoise: the denoiser ``x -> D(x)``, called once per evaluation.
            cfg_gap: returns ``cfg * (D_cond - D_uncond)`` of the last call of denoise, or None;
                asked after the first one.
            reused: whether the last call of denoise was answered without the model, by a cache
                of another node; None: never.
        """
        if not self.guides(sigma):
            return self._plain(x, sigma, denoise)
        model = Model(denoise, cfg_gap, reused)
        warning = self._landing and self._landing.warning(x, sigma)
        if warning:
            self.warn(warning)
        self._begin_step(self._active(sigma), sigma)
        self._guided_steps += 1
        made = self._repeated(x, sigma, model)
        if not self._directions.slope_is_right(made.pulled, model):
            self._strength.forget()
            made = self._repeated(x, sigma, model)
        return made.corrected

    @torch.no_grad()
    def _plain(self, x: Tensor, sigma: float, denoise: Denoise) -> Tensor:
        """The prediction as it is, its energies measured if the run only measures."""
        prediction = denoise(x)
        self.trace.plain_forwards += 1
        if self.measures:
            self.measure(prediction, sigma)
        return prediction

    def _repeated(self, x: Tensor, sigma: float, model: Model) -> _Evaluated:
        """Evaluate as often as time travel repeats the step, and return the last evaluation."""
        level = self.schedule.noise_level(sigma)
        made = self._guided(x, sigma, level, model, 0)
        for repeat in range(1, self._travel.repeats(sigma)):
            if made.reused:
                break  # a cache would answer the next repeat with the same old prediction
            x = self._travel.again(x, made.prediction, made.corrected, sigma, level, repeat)
            made = self._guided(x, sigma, level, model, repeat)
        return made

    @torch.no_grad()
    def measure(self, prediction: Tensor, sigma: float) -> None:
        """Record the energies of a prediction that is not corrected."""
        active = self._active(sigma)
        if not active:
            return
        started = time.perf_counter()
        meter = self._meter(self.step_at(sigma))
        self._report.watch_prediction(prediction)
        self._begin_step(active, sigma)
        energies = seen_alone(active, self._energies(prediction, active, meter))
        self._report.record(self.step_at(sigma), sigma, active, energies, meter, started)

    @torch.no_grad()
    def finish(self, latent: Tensor, *, clean: bool = True) -> Trace:
        """Record what is known at the end of the run and return the trace.

        Args:
            latent: the latent that the sampler returned, ``[B, ...]``.
            clean: whether it is free of noise; the energies of a noisy latent mean nothing.
        """
        guided = [s for s in self.schedule.sigmas if s > 0.0 and self._is_guided_step(s)]
        travels = any(self._travel.repeats(s) > 1 for s in guided)
        self._report.close(self.conditions, guided, self.schedule, travels=travels)
        self._tell_cost()
        present = tuple(c for c in self.conditions if c.weight > 0.0)
        if not clean:
            self.trace.notes.append(
                "the latent still has noise (another sampler goes on with it): final energies "
                "are those of the sampler that ends"
            )
        elif present:
            begin_step(present, None)
            energies = self._energies(latent, present, self._meter(self._steps))
            names = [c.name for c in present]
            self._report.finish(
                dict(zip(names, measured(present, energies), strict=True)),
                {c.name: unseen(c, len(latent)) for c in present},
            )
        return self.trace

    def _tell_cost(self) -> None:
        plain, checks = self.trace.plain_forwards, self.trace.extra_forwards
        steps = self.trace.predictions = plain + self._guided_steps
        alone = plain + checks.get(f"{DENOISER} check", 0) + self._directions.plain_predictions
        shares = self._cost.shares(steps, alone, DENOISER)
        if shares is not None:
            shares["total"] = sum(shares.values())
            self.trace.cost = {part: rounded(share) for part, share in shares.items()}

    def _meter(self, done: int) -> Meter:
        """Counts work outside the guided evaluations, when ``done`` sampler steps are."""
        return Meter(before=lambda: self._watch.working(done))

    def _begin_step(self, active: tuple[Condition, ...], sigma: float) -> None:
        begin_step(active, self.step_at(sigma), self.streams.step_seed(sigma))

    def _energies(
        self,
        latent: Tensor,
        conditions: Sequence[Condition],
        meter: Meter,
        shifts: Sequence[tuple[int, int]] = (),
    ) -> list[Tensor]:
        image = Tape([Stage("decoder", self.decode)], latent, meter, track=False).output
        field = EnergyField([], conditions, meter, shifts=shifts)
        image = field.shifted(image)
        return [field.energy(j, image) for j in range(len(conditions))]

    def _guided(
        self, x: Tensor, sigma: float, level: NoiseLevel, model: Model, repeat: int
    ) -> _Evaluated:
        """One evaluation at x, with the correction of its prediction."""
        started = time.perf_counter()
        active, denoiser = self._active(sigma), Denoiser(model)
        around = neighbors(self.settings, self.streams, x, sigma, level, repeat)
        shifts = self._random_shifts(len(x), sigma, repeat)
        look = Look(x, level, active, shifts, Meter(cost=self._cost), neighbors=around)
        names = (condition.name for condition in active)
        kind = (self._directions.path, self._strength.is_open, *names)
        place = (self.step_at(sigma), repeat, self._travel.repeats(sigma))
        with self._pace.evaluation(kind, *place) as look.meter.before:
            path, made = self._directions.through(look, denoiser, self.decode)
            direction = self._momentum(made.direction)
            state = StepState(x, made.prediction, direction, level, made.merit, denoiser.gap)
            if self._landing:
                state = self._landing.completed(state, sigma, repeat)

            def energies_of(latent: Tensor) -> list[Tensor]:
                return self._energies(latent, active, look.meter, shifts)

            def look_at(prediction: Tensor) -> Direction:
                return self._directions.behind(look.at(prediction), denoiser, self.decode)

            if self._strength.is_open:
                self._strength.find(state, look, made, energies_of, self.step_at(sigma))
            strong = replace(self.settings, strength=self._strength.value)
            better = corrected(state, strong, path in NO_BACKPROP, look_at)
        look.meter.reused += denoiser.reused_first
        self._report.watch_gradients(active, made.own, made.record["satisfied"])
        self._report.watch_prediction(made.prediction)
        self._report.record(
            self.step_at(sigma),
            sigma,
            active,
            meter=look.meter,
            started=started,
            correction=rms(better - made.prediction),
            path=path,
            **made.record,
        )
        if self._landing:
            self._landing.aim(x, better, sigma)
        return _Evaluated(made.prediction, better, made.pulled, denoiser.reused_first)

    def _random_shifts(self, batch: int, sigma: float, repeat: int) -> list[tuple[int, int]]:
        reach = self.settings.random_shift
        return self.streams.shifts(batch, reach, sigma, repeat) if reach else []
