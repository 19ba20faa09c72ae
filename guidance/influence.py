"""Which conditions have no effect, and why: there is a sentence for each of them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .conditions import Condition, lies_within
from .live_regions import LiveRegion
from .wording import numbered

__all__ = ["Influence"]

MOST_LISTED = 8  # numbers in one sentence


class Influence:
    """Remembers which conditions of a run were asked, and what their gradients were."""

    def __init__(self) -> None:
        self._moved: dict[str, set[int]] = {}  # the pictures that ever had a gradient, by name
        self._done: dict[str, set[int]] = {}  # those in which it was ever satisfied
        self._still: dict[str, set[int]] = {}  # those whose gradient was ever exactly 0

    def of_step(
        self,
        active: Sequence[Condition],
        valid: Tensor,
        finite: Tensor,
        satisfied: Sequence[Sequence[bool]] = (),
    ) -> list[str]:
        """Warnings on the gradients of one guided evaluation.

        Args:
            active: the n conditions.
            valid, finite: see ``ConditionGradients``, ``[n, B]`` on the CPU.
            satisfied: see ``StepRecord``; empty: none is.
        """
        warnings = []
        done = satisfied or torch.zeros_like(valid).tolist()
        each = zip(active, valid.tolist(), finite.tolist(), done, strict=True)
        for condition, moves, is_finite, is_done in each:
            pictures = range(len(moves))
            self._done.setdefault(condition.name, set()).update(b for b in pictures if is_done[b])
            self._moved.setdefault(condition.name, set()).update(b for b in pictures if moves[b])
            self._still.setdefault(condition.name, set()).update(
                b for b in pictures if is_finite[b] and not moves[b] and not is_done[b]
            )
            if not all(is_finite):
                which = numbered(b for b in pictures if not is_finite[b])
                warnings.append(
                    f"{condition.name} has no finite gradient and was left out of a step "
                    f"(picture {which})"
                )
        return warnings

    def of_run(
        self,
        conditions: Sequence[Condition],
        sigmas: Sequence[float],
        sigma_at: Callable[[float], float],
    ) -> tuple[list[str], list[str]]:
        """Warnings on conditions that had no effect in a finished run, with the reason; notes.

        Args:
            conditions: all conditions of the run.
            sigmas: noise levels at which the run could guide.
            sigma_at: a fraction of the sampling to its sigma, decreasing.
        """
        warnings, notes = [], []
        for condition in conditions:
            name = condition.name
            if name not in self._moved:
                reason = _reason(condition, sigmas, sigma_at)
                warnings.append(f"{name} guided in no step: {reason}")
                continue
            moved, still = self._moved[name], self._still[name]
            empty = _pictures_without_region(condition)
            if empty:
                warnings.append(
                    f"{name} did not guide picture {numbered(empty)}: its region is empty there"
                )
            idle = still - moved - empty
            content = self._done[name] - moved - still - empty
            if content:
                where = f" at picture {numbered(content)}" if moved or still else ""
                warnings.append(
                    f"{name} has no effect{where}: it was satisfied at every look, its energy "
                    f"below satisfied_at {condition.satisfied_at:g}; a smaller value lets it guide"
                )
            if isinstance(condition.region, LiveRegion):
                continue  # where it was not found nothing pulls, which it says itself
            if idle:
                where = f" at picture {numbered(idle)}" if moved else ""
                warnings.append(
                    f"{name} has no effect{where}, its gradient is exactly 0: it is satisfied, or "
                    "does not depend on the picture"
                )
            elif still & moved:
                notes.append(f"{name} was satisfied in some steps: its gradient was exactly 0")
        return warnings, notes


def _reason(
    condition: Condition, sigmas: Sequence[float], sigma_at: Callable[[float], float]
) -> str:
    if condition.weight == 0.0:
        return "its weight is 0"
    if condition.nowhere:
        return (
            "its region is empty, no pixel of the mask is above 0 (the mask that comes with a "
            "picture without transparency is empty)"
        )
    window = f"its window from {condition.start:g} to {condition.end:g}"
    if condition.start == condition.end:
        return f"{window} has no width"
    ends = (condition.start, condition.end)
    if any(lies_within(sigma, *ends, sigma_at) for sigma in sigmas):
        return f"the sampler made no evaluation in {window}"
    high, low = map(sigma_at, ends)
    listed = ", ".join(f"{sigma:.3g}" for sigma in sigmas[:MOST_LISTED])
    more = ", ..." if len(sigmas) > MOST_LISTED else ""
    return (
        f"{window} (noise levels {high:.3g} to {low:.3g}) holds no guided step of this run "
        f"(at {listed or 'none'}{more})"
    )


def _pictures_without_region(condition: Condition) -> set[int]:
    """The pictures of a batch whose own mask is empty."""
    if not isinstance(condition.region, Tensor) or len(condition.region) == 1:
        return set()
    full = (condition.region > 0.0).flatten(1).any(1).tolist()
    return {b for b, some in enumerate(full) if not some}
