"""What a picture costs here and now, and how much fits into the time there is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .jobs import Job, estimated_jobs
from .plan import STRENGTHS, UNTUNED, Plan
from .results import Store

__all__ = ["Cost", "chosen_plan"]

# Condition sets and steps, from the most to the least.
SIZES = ("tests", "tunings", "ablations", "steps")
FULL = (
    *((100, 8, 16, steps) for steps in (12, 10, 8, 7, 6)),
    (100, 6, 8, 5),
    (100, 6, 8, 4),
    (100, 4, 6, 4),
    (100, 4, 6, 3),
)
QUICK = (
    *((tests, 0, 0, 6) for tests in (8, 6, 4, 3, 2)),
    *((2, 0, 0, steps) for steps in (5, 4, 3)),
)
# Share of the time that is planned for: other programs may slow the machine down.
PLANNED = 0.85


@dataclass(frozen=True)
class Cost:
    """Seconds of one picture here and now.

    Args:
        evaluation: a forward or a backward of the model, with its share of all else.
        measurement: what is measured on a finished picture.
    """

    evaluation: float
    measurement: float

    def of(self, jobs: Iterable[Job], store: Store | None = None) -> float:
        """Seconds of the jobs that are not in the store."""
        return sum(
            job.evaluations * self.evaluation + len(job.sets) * self.measurement
            for job in jobs
            if store is None or not all(run in store for run in job.runs)
        )


def chosen_plan(
    quick: bool, seconds: float, cost: Cost, sets: Callable[[int], Sequence], **asked: object
) -> tuple[Plan, float]:
    """The largest plan that fits into ``seconds``, the smallest if none does; and its time.

    Args:
        sets: number to condition sets.
        asked: fields of the plan that are given, not chosen; the tasks always are.
    """
    strengths = UNTUNED if quick else STRENGTHS
    for sizes in QUICK if quick else FULL:
        chosen = dict(zip(SIZES, sizes, strict=True), strengths=strengths)
        plan = Plan(**{**chosen, **asked})
        expected = cost.of(estimated_jobs(plan, sets(plan.tests)))
        if expected <= PLANNED * seconds:
            break
    return plan, expected
