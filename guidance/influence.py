"""Which conditions have no effect, and why: none of them is passed over in silence."""

from collections.abc import Callable, Iterable, Sequence

from .conditions import Condition, lies_between
from .dependence import ConditionGradients

__all__ = ["Influence"]

MOST_LISTED = 8  # numbers in one sentence


class Influence:
    """Remembers which conditions of a run were asked, and which ever had a gradient."""

    def __init__(self):
        self._asked: set[str] = set()
        self._moved: set[str] = set()

    def of_step(
        self, active: Sequence[Condition], gradients: ConditionGradients
    ) -> tuple[list[str], list[str]]:
        """Warnings and notes on the gradients ``[n, B]`` of one guided evaluation."""
        warnings, notes = [], []
        valid = gradients.valid.any(1).tolist()
        finite = gradients.finite.tolist()
        for condition, has_gradient, pictures in zip(active, valid, finite, strict=True):
            name = condition.name
            self._asked.add(name)
            if not all(pictures):
                which = _numbers(not each for each in pictures)
                warnings.append(
                    f"{name} has no finite gradient and was left out of a step (picture {which})"
                )
            elif has_gradient:
                self._moved.add(name)
            elif name in self._moved:
                notes.append(f"{name} was satisfied in some steps: its gradient was exactly 0")
            else:
                warnings.append(
                    f"{name} has no effect, its gradient is exactly 0: it is satisfied, or does "
                    "not depend on the picture"
                )
        return warnings, notes

    def of_run(
        self,
        conditions: Sequence[Condition],
        sigmas: Sequence[float],
        percent_to_sigma: Callable[[float], float],
    ) -> list[str]:
        """Warnings on conditions that guided in no step of a finished run, with the reason.

        Args:
            conditions: all of the run.
            sigmas: noise levels at which the run could guide.
            percent_to_sigma: a fraction of the sampling to its sigma, decreasing.
        """
        warnings = []
        for condition in conditions:
            if condition.name not in self._asked:
                reason = _reason(condition, sigmas, percent_to_sigma)
                warnings.append(f"{condition.name} guided in no step: {reason}")
                continue
            empty = _pictures_without_region(condition)
            if empty:
                warnings.append(
                    f"{condition.name} did not guide picture {empty}: its region is empty there"
                )
        return warnings


def _reason(
    condition: Condition, sigmas: Sequence[float], percent_to_sigma: Callable[[float], float]
) -> str:
    if condition.weight == 0.0:
        return "its weight is 0"
    if condition.region is not None and not (condition.region > 0.0).any():
        return (
            "its region is empty, no pixel of the mask is above 0 (the mask that comes with a "
            "picture without transparency is empty)"
        )
    window = f"its window from {condition.start:g} to {condition.end:g}"
    if condition.start == condition.end:
        return f"{window} has no width"
    high, low = percent_to_sigma(condition.start), percent_to_sigma(condition.end)
    if any(lies_between(sigma, low, high) for sigma in sigmas):
        return f"the sampler made no evaluation in {window}"
    listed = ", ".join(f"{sigma:.3g}" for sigma in sigmas[:MOST_LISTED])
    more = ", ..." if len(sigmas) > MOST_LISTED else ""
    return (
        f"{window} (noise levels {high:.3g} to {low:.3g}) holds no guided step of this run "
        f"(at {listed or 'none'}{more})"
    )


def _pictures_without_region(condition: Condition) -> str:
    """The numbers, from 1, of the pictures whose own mask is empty; '' if there is none."""
    if condition.region is None or len(condition.region) == 1:
        return ""
    return _numbers(not some for some in (condition.region > 0.0).flatten(1).any(1).tolist())


def _numbers(flags: Iterable[bool]) -> str:
    """The places of the true ones, counted from 1."""
    return ", ".join(str(k) for k, flag in enumerate(flags, 1) if flag)
