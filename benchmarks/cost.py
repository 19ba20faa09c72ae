"""What a picture costs here and now, and how much fits into the time there is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from .jobs import Job, estimated_jobs
from .plan import BATCH, UNTUNED, Plan
from .results import Store

__all__ = ["Cost", "chosen_plan"]

# Condition sets of test, tuning and ablations, and steps: from the most to the least.
FULL = (
    *((100, 8, 16, steps) for steps in (12, 10, 8, 7, 6)),
    (100, 6, 8, 5),
    (100, 6, 8, 4),
    (100, 4, 6, 4),
    (100, 4, 6, 3),
)
QUICK = ((8, 6), (6, 6), (4, 6), (3, 6), (2, 6), (2, 5), (2, 4), (2, 3))
# Share of the time that is planned for: other programs may slow the machine down.
PLANNED = 0.85


@dataclass(frozen=True)
class Cost:
    """Seconds of one picture here and now.

    Args:
        evaluation: a forward or a backward of the model, with its share of all else.
        measurement: what is done with a finished picture.
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
    tasks: tuple[str, ...],
    quick: bool,
    studies: tuple[str, ...],
    seconds: float,
    cost: Cost,
    sets: Callable[[int], Sequence],
    batch: int = BATCH,
    methods: tuple[str, ...] = (),
    steps: int | None = None,
    tests: int | None = None,
) -> tuple[Plan, float]:
    """The largest plan that fits into ``seconds``, the smallest if none does; and its time.

    Args:
        methods: names of the rows, see Plan.
        steps, tests: steps of the sampler and condition sets of the tables; None chooses them.
    """
    if quick:
        plans = [Plan(tasks, n, 0, 0, steps, UNTUNED, (), batch) for n, steps in QUICK]
    else:
        plans = [Plan(tasks, *sizes, studies=studies, batch=batch) for sizes in FULL]
    plans = [
        replace(plan, methods=methods, steps=steps or plan.steps, tests=tests or plan.tests)
        for plan in plans
    ]
    for plan in plans:
        expected = cost.of(estimated_jobs(plan, sets(plan.tests)))
        if expected <= PLANNED * seconds:
            break
    return plan, expected
