"""The report of a guided run: records of its steps, warnings, and what its end shows."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from .conditions import Condition, reports
from .dependence import ConditionGradients
from .evaluation import Meter
from .influence import Influence
from .progress import nothing
from .schedule import WHOLE, Schedule
from .settings import GuidanceSettings
from .trace import Calibration, ConditionFacts, StepRecord, Trace, rounded
from .transfers import fetched
from .wording import printable

__all__ = ["RunReport"]

log = logging.getLogger(__name__)


class RunReport:
    """The trace of one run, and which of its conditions had an effect.

    Args:
        settings: the settings of the run.
        looked: told the record of every evaluation as soon as its numbers are there.
    """

    def __init__(self, settings: GuidanceSettings, looked: Callable[[StepRecord], None] = nothing):
        self.trace = Trace(asdict(settings))
        self._settings = settings
        self._looked = looked
        self._influence = Influence()
        # What is told as soon as the numbers of these tensors are there.
        self._waiting: list[tuple[Callable[..., None], tuple[Tensor, ...]]] = []

    def warn(self, message: str) -> None:
        """Keep a warning for the report and log it, once a run."""
        self.trace.warn(message)

    def watch_gradients(
        self,
        active: Sequence[Condition],
        gradients: ConditionGradients,
        satisfied: Sequence[Sequence[bool]] = (),
    ) -> None:
        """Remember which conditions had a gradient; warn of those that are not finite.

        Args:
            satisfied: see ``StepRecord``.
        """

        def tell(valid: Tensor, finite: Tensor) -> None:
            for sentence in self._influence.of_step(active, valid, finite, satisfied):
                self.warn(sentence)

        self._waiting.append((tell, (gradients.valid, gradients.finite)))

    def watch_prediction(self, prediction: Tensor) -> None:
        """Warn of pictures whose ``prediction [B, ...]`` is not finite."""

        def tell(finite: Tensor) -> None:
            numbers = enumerate(finite.tolist(), start=1)
            broken = ", ".join(str(b) for b, is_finite in numbers if not is_finite)
            if broken:
                self.warn(
                    f"the model's prediction is not finite (NaN or infinite) for picture {broken} "
                    f"of {len(finite)}: it is not guided there"
                )

        self._waiting.append((tell, (torch.isfinite(prediction).flatten(1).all(1),)))

    def calibrated(self, found: Calibration) -> None:
        """Keep the strength that was found, and log it."""
        self.trace.calibration = found
        log.info("Z-Magic: %s", printable(found.words()))

    def record(
        self,
        step: int,
        sigma: float,
        active: Sequence[Condition],
        energies: Sequence[Tensor],
        meter: Meter,
        started: float,
        **details: Any,
    ) -> None:
        """Keep what happened in one evaluation, and tell what was watched in it.

        All of its numbers are fetched from the device in one copy, for which it has to be done.

        Args:
            step: the number of the sampler step; sigma: its noise level.
            active: the conditions that were evaluated; energies: theirs, ``[B]`` each.
            meter: the counts of the evaluation.
            started: when it began, by ``time.perf_counter``.
            details: further fields of the ``StepRecord``, as they are or as tensors.
        """
        there = {name: value for name, value in details.items() if isinstance(value, Tensor)}

        def tell(*values: Tensor) -> None:
            numbers = [rounded(value) for value in values]
            fields = dict(zip(there, numbers[len(energies) :], strict=True))
            self.trace.steps.append(
                StepRecord(
                    step=step,
                    sigma=rounded(sigma),
                    conditions=[c.name for c in active],
                    energies=numbers[: len(energies)],
                    forwards=meter.computed(),
                    backwards=dict(meter.backwards),
                    energy_calls=meter.energy_calls,
                    seconds=rounded(time.perf_counter() - started),
                    **{**details, **fields},
                )
            )

        self._waiting.append((tell, (*energies, *there.values())))
        self._tell()
        self._looked(self.trace.steps[-1])

    def _tell(self) -> None:
        """Fetch the numbers that wait, and tell what they say."""
        waiting, self._waiting = self._waiting, []
        values = iter(fetched([tensor for _, tensors in waiting for tensor in tensors]))
        for tell, tensors in waiting:
            tell(*(next(values) for _ in tensors))

    def close(
        self,
        conditions: Sequence[Condition],
        sigmas: Sequence[float],
        schedule: Schedule,
        *,
        travels: bool,
    ) -> None:
        """Add what had no effect in the finished run, and the sentences of the energies.

        Args:
            conditions: all conditions of the run.
            sigmas: noise levels at which the run could guide.
            schedule: that of the run.
            travels: whether time travel repeats a prediction at one of them.
        """
        self.trace.conditions = [_facts(condition) for condition in conditions]
        self.trace.notes += self._settings.without_effect
        self.trace.notes += reports(conditions, "notes")
        self._tell_part(schedule)
        if self._settings.strength == 0.0:
            self.trace.notes.append("strength is 0: energies were measured and nothing was guided")
        elif not sigmas and not schedule.is_behind(self._settings.guided_share):
            settings, every = self._settings, self._settings.guide_every
            step = "step" if every == 1 else f"guided step (one in {every}, from the first on)"
            share = settings.guided_share
            first = "" if share == 1.0 else f"the first {share:g} (guided_share) of "
            self.warn(
                f"nothing was guided: the window from guide_start {settings.guide_start:g} to "
                f"guide_end {settings.guide_end:g} holds no {step} of {first}this run"
            )
        elif sigmas:
            warnings, notes = self._influence.of_run(conditions, sigmas, schedule.sigma_at)
            self.trace.notes += notes
            for sentence in warnings:
                self.warn(sentence)
            self._warn_of_idle_travel(travels)
        if self.trace.calibration:
            for sentence in self.trace.calibration.warnings:
                self.warn(sentence)
        for sentence in reports(conditions, "warnings"):
            self.warn(sentence)

    def finish(self, energies: dict[str, Tensor], unseen: dict[str, list[bool]]) -> None:
        """Keep the energies of the finished pictures, ``[B]`` by condition.

        Args:
            unseen: in which of them it was not seen what the condition is about.
        """
        self.trace.final = {name: rounded(energy) for name, energy in energies.items()}
        self.trace.conditions = [
            replace(
                facts, unseen=[b for b, hidden in enumerate(unseen.get(facts.name, [])) if hidden]
            )
            for facts in self.trace.conditions
        ]

    def _tell_part(self, schedule: Schedule) -> None:
        share, part = self._settings.guided_share, schedule.part
        if share < 1.0 and part != WHOLE:
            said = (
                f"guided_share {share:g} is of the whole sampling, of which this is the part from "
                f"{part[0]:.2g} to {part[1]:.2g}, by its noise levels"
            )
            idle = schedule.is_behind(share)
            self.trace.notes.append(f"{said}: nothing was guided in it" if idle else said)

    def _warn_of_idle_travel(self, travels: bool) -> None:
        settings = self._settings
        if settings.time_travel > 1 and not travels:
            self.warn(
                f"time_travel has no effect: its window from {settings.travel_start:g} to "
                f"{settings.travel_end:g} holds no guided step of this run"
            )


def _facts(condition: Condition) -> ConditionFacts:
    energy = condition.energy
    return ConditionFacts(
        condition.name,
        condition.weight,
        (condition.start, condition.end),
        getattr(energy, "goal", None),
        getattr(energy, "face_looks", None),
        condition.satisfied_at,
    )
