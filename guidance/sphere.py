"""Where the step rule ``spherical`` aims, and whether a solver ends its steps there.

The rule takes a first-order solver to a point of a sphere. Another solver mixes several predictions
or adds noise of its own, and ends elsewhere; nothing else would show it.
"""

from dataclasses import replace

from torch import Tensor

from .norms import rms
from .random_streams import RandomStreams
from .schedule import SAME_SIGMA, Schedule
from .steps import StepState

__all__ = ["Landing"]

# Steps that are compared: a solver of several predictions begins with a step of the first order.
COMPARED = 3
# Difference from where the step aims, as a share of RMS(x), that is more than rounding.
MISSED = 0.05
WARNING = (
    "step_rule spherical: the sampler does not end its step where this rule aims; choose the "
    "sampler euler, and no noise mask"
)


class Landing:
    """Compares where a run's first guided steps end with where they aimed.

    Args:
        schedule: the noise levels of the sampler.
        streams: the random draws of the run.
    """

    def __init__(self, schedule: Schedule, streams: RandomStreams):
        self._schedule, self._streams = schedule, streams
        self._aim: tuple[float, Tensor] | None = None
        self._left = COMPARED

    def completed(self, state: StepState, sigma: float, repeat: int) -> StepState:
        """``state`` with what this rule needs besides: where the step goes, and fresh noise."""
        lower = self._schedule.noise_level(self._schedule.next_sigma(sigma))
        noise = self._streams.normal(state.x, sigma, repeat, "sphere")
        return replace(state, lower=lower, noise=noise)

    def aim(self, x: Tensor, corrected: Tensor, sigma: float) -> None:
        """Remember where a first-order solver goes from ``x`` with the corrected prediction."""
        lower = self._schedule.next_sigma(sigma)
        if not self._left or lower == 0.0:
            return
        level, there = self._schedule.noise_level(sigma), self._schedule.noise_level(lower)
        kept = there.s / level.s
        self._aim = (lower, kept * x + (there.alpha - kept * level.alpha) * corrected)

    def warning(self, x: Tensor, sigma: float) -> str | None:
        """What is wrong if the solver came to ``x`` instead; None if nothing is known to be."""
        if self._aim is None:
            return None
        (lower, aimed), self._aim, self._left = self._aim, None, self._left - 1
        if sigma > lower * (1.0 + SAME_SIGMA):  # a look between two steps
            return WARNING
        # Steps that nothing guides came between, or this is a part of the batch, or a tile.
        if sigma < lower * (1.0 - SAME_SIGMA) or aimed.shape != x.shape:
            return None
        return WARNING if bool((rms(x - aimed) > MISSED * rms(x)).any()) else None
