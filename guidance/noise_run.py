"""One run that searches its noise: evaluations of whole pictures, and the record of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .conditions import Condition, begin_step
from .denoiser_gradient import is_out_of_memory
from .direction import Direction, Look, balanced_direction
from .engine import GuidedRun
from .evaluation import DENOISER, Meter, NotDifferentiable
from .noise_search import (
    Ascent,
    NoiseSearch,
    acting,
    best_of_each,
    open_windows,
    settings_of_search,
    without_effect,
)
from .norms import rms
from .operations import FORWARD
from .schedule import NoiseLevel
from .settings import GuidanceSettings
from .trace import FoundNoise
from .unseen import due_looks, measured

__all__ = ["NoiseRun"]

# The noise itself: all of the picture is open.
START = NoiseLevel(0.0, 1.0)

Sample = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Tried:
    """One noise that was looked at: its energies, and where to go from there (None: not asked)."""

    energies: list[Tensor]
    direction: Tensor | None


class NoiseRun(GuidedRun):
    """A run whose predictions stay as they are: its noise is searched before it is sampled.

    Every evaluation is a whole picture. The energies that draw (crops, views) draw the same in all
    of them, so that they can be compared.
    """

    def __init__(
        self,
        conditions: Sequence[Condition],
        settings: GuidanceSettings,
        search: NoiseSearch,
        **options: Any,
    ):
        """
        Args:
            conditions, settings, options: those of ``GuidedRun``; windows are of no account.
            search: what the search may take.
        """
        conditions, windows = open_windows(conditions)
        super().__init__(conditions, settings_of_search(settings), **options)
        self.trace.settings = acting(self.settings)
        for sentence in without_effect(settings):
            self.warn(sentence)
        self._search = search
        self._predictions = 0  # of the model, for the picture that is made
        if windows:
            self.trace.notes.append(
                f"the windows (start, end) of {' and '.join(windows)} have no effect: a search "
                "looks at finished pictures"
            )

    def guides(self, sigma: float) -> bool:
        """Never: predictions stay as they are."""
        return False

    @property
    def measures(self) -> bool:
        """Never: evaluations are those of the search."""
        return False

    def search(self, noise: Tensor, sample: Sample) -> Tensor:
        """The best noise of those that were looked at, each picture's own, like ``noise``.

        The first one is ``noise`` itself.

        Args:
            noise: standard normal noise ``[B, ...]``.
            sample: takes noise to the clean latent, through all steps of the sampler;
                differentiable inside ``gradients``.

        Raises:
            ValueError: the picture has no gradient with respect to its noise.
        """
        sigma = self.schedule.sigmas[0]
        active = self._active(sigma)
        if not active:
            self._report.warn("no condition has a weight above 0: the noise stays as it is")
            return noise
        ascent = Ascent(noise, self._search)
        tried: list[Tensor] = []
        energies: list[list[list[float]]] = []
        for number in range(self._search.evaluations):
            last = number == self._search.evaluations - 1
            try:
                made = self._evaluated(ascent, active, sample, number, last)
            except RuntimeError as error:
                if not is_out_of_memory(error) or not tried:
                    raise
                made = None
            if made is None:  # out here the memory of the failed pass is free again
                self._report.warn(
                    f"not enough memory: the search ended after {number} of "
                    f"{self._search.evaluations} evaluations, and the best of them was taken"
                )
                break
            tried.append(ascent.noise.cpu())
            energies.append(self.trace.steps[-1].energies)
            if made.direction is None:
                continue
            if not made.direction.any():
                self.trace.notes.append(
                    f"the search ended after {len(tried)} of {self._search.evaluations} "
                    "evaluations: nothing pulls any more; each condition is satisfied, or has no "
                    "gradient in these pictures"
                )
                break
            with torch.no_grad():
                ascent.move(made.direction)
        best = best_of_each(energies, active)
        facts = self._search
        self.trace.noise = FoundNoise(len(tried), best, facts.rate, facts.white)
        found = torch.stack([tried[number][b] for b, number in enumerate(best)])
        return found.to(noise)

    def predicted(self) -> None:
        """Count one evaluation of the model for a picture: ``sample`` tells it of each.

        Without it the model is taken to be evaluated once in each step of the sampler.
        """
        self._predictions += 1

    def _evaluations(self) -> int:
        return self._predictions or self._steps

    def _evaluated(
        self,
        ascent: Ascent,
        active: tuple[Condition, ...],
        sample: Sample,
        number: int,
        last: bool,
    ) -> _Tried:
        """Make one picture, and measure it."""
        started, before = time.perf_counter(), ascent.noise
        sigma = self.schedule.sigmas[0]
        begin_step(active, number, self.streams.step_seed(sigma))
        look = Look(before, START, active, [], Meter(cost=self._cost))
        kind = ("noise", last, *(condition.name for condition in active))
        with self._pace.evaluation(kind, number, 0, 1) as look.meter.before:
            made, details = self._looked(look, sample, last)
        self._report.record(
            number,
            sigma,
            active,
            meter=look.meter,
            started=started,
            energies=measured(active, made.energies),
            **details,
        )
        return made

    def _looked(self, look: Look, sample: Sample, last: bool) -> tuple[_Tried, dict[str, Any]]:
        """The energies of one picture, and, but for the last, the direction in its noise."""
        self._predictions = 0
        if last:
            kind = ("picture", *(c.name for c in look.active), due_looks(look.active, len(look.x)))
            with torch.no_grad(), look.meter.piece(*kind):
                with look.meter.running(DENOISER, FORWARD, self._evaluations):
                    picture = sample(look.x)
                energies = self._energies(picture, look.active, look.meter)
            return _Tried(energies, None), {}
        made = self._direction_in_noise(look, sample)
        self._report.watch_gradients(look.active, made.own, made.record["satisfied"])
        self._report.watch_prediction(made.prediction)
        details = {name: value for name, value in made.record.items() if name != "energies"}
        details["path"] = self.settings.gradient_path
        details["correction"] = self._search.rate * rms(look.x)
        return _Tried(made.record["energies"], made.direction), details

    def _direction_in_noise(self, look: Look, sample: Sample) -> Direction:
        """The balanced direction, by the largest way that there is memory for."""
        while True:
            try:
                self._predictions = 0
                with self._gradients():
                    path = self.settings.gradient_path
                    return balanced_direction(
                        look, sample, self.decode, self.settings, path, self._evaluations
                    )
            except NotDifferentiable as stop:
                raise ValueError(_no_gradient(stop)) from None
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                saved = self._save_memory and self._save_memory()
                if not saved:
                    raise
            # Out here the memory of the failed pass is free again.
            self._report.warn(f"not enough memory for the gradient: {saved}")
            self._cost.change()


def _no_gradient(stop: NotDifferentiable) -> str:
    if stop.stage != DENOISER:
        return f"choose another decoder: {stop}"
    if stop.cause is None:
        return (
            "choose the sampler euler: the gradient does not come through this one, or a node in "
            "front of this one answered in the model's place from its cache"
        )
    return (
        "take out the patches of the model in front of this node: it cannot be differentiated "
        f"with them ({stop.cause})"
    )
