"""How much is measured: as many steps, or sets, as fit into the time there is."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .condition_sets import ConditionSet
from .experiment import Job
from .methods import ABLATIONS, EQUAL_COST, Method, methods
from .results import Store
from .tasks import ABLATION_TASK, MANY, attributes_of

__all__ = ["Cost", "Plan", "chosen_plan", "jobs_of_ablations", "jobs_of_test", "jobs_of_tuning"]

# Of the residual step rule; each is about twice the one before.
STRENGTHS = (0.07, 0.15, 0.3, 0.6)
# Without tuning all methods have the default of the nodes.
UNTUNED = (0.2,)
BATCH = 10
FULL_STEPS = (12, 10, 8, 7, 6, 5, 4)
QUICK_SETS, QUICK_STEPS = (8, 6, 4, 3, 2), 4
# Share of the time that is planned for: other programs may slow the machine down.
PLANNED = 0.85


@dataclass(frozen=True)
class Plan:
    """Sizes of all stages.

    Args:
        tasks: their names.
        tests, tunings, ablations: numbers of condition sets.
        steps: of the sampler.
        strengths: what is tried for every method.
        studies: names of the ablations.
        batch: condition sets of one run of the sampler.
    """

    tasks: tuple[str, ...]
    tests: int
    tunings: int
    ablations: int
    steps: int
    strengths: tuple[float, ...] = STRENGTHS
    studies: tuple[str, ...] = tuple(ABLATIONS)
    batch: int = BATCH

    def save(self, path: Path) -> None:
        """Keep the plan, so that the run continues with it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> "Plan | None":
        """The plan of an earlier run, None without one."""
        if not path.is_file():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        lists = {key: tuple(value) for key, value in content.items() if isinstance(value, list)}
        return Plan(**{**content, **lists})


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


def jobs_of_tuning(plan: Plan, sets: Sequence[ConditionSet]) -> Iterator[Job]:
    """Every method with every strength, on people that the tables do not show."""
    if not plan.tunings:
        return
    for task in plan.tasks:
        for method in methods(len(attributes_of(task))):
            for strength in plan.strengths if method.guided else (0.0,):
                yield from _jobs("tune", task, method, strength, plan, sets[: plan.tunings])


def jobs_of_test(
    plan: Plan, sets: Sequence[ConditionSet], strengths: Callable[[str, str], float | None]
) -> Iterator[Job]:
    """Every method with the strength chosen for it; None leaves a method out."""
    for task in plan.tasks:
        for method in methods(len(attributes_of(task))):
            strength = strengths(task, method.name) if method.guided else 0.0
            if strength is not None:
                yield from _jobs("test", task, method, strength, plan, sets[: plan.tests])


def jobs_of_ablations(
    plan: Plan, sets: Sequence[ConditionSet], strength: Callable[[Method], float]
) -> Iterator[Job]:
    """The variants of the paper's method, all with its strength."""
    for study in plan.studies:
        for method in ABLATIONS[study]:
            task = ABLATION_TASK if method.conditions is None else MANY
            yield from _jobs(study, task, method, strength(method), plan, sets[: plan.ablations])


def chosen_plan(
    tasks: tuple[str, ...],
    quick: bool,
    studies: tuple[str, ...],
    seconds: float,
    cost: Cost,
    sets: Callable[[int], Sequence],
) -> tuple[Plan, float]:
    """The largest plan that fits into ``seconds``, the smallest if none does; and its time."""
    if quick:
        plans = [Plan(tasks, n, 0, 0, QUICK_STEPS, UNTUNED, ()) for n in QUICK_SETS]
    else:
        plans = [Plan(tasks, 100, 8, 16, steps, studies=studies) for steps in FULL_STEPS]
    for plan in plans:
        expected = cost.of(_all_jobs(plan, sets(plan.tests)))
        if expected <= PLANNED * seconds:
            break
    return plan, expected


def _all_jobs(plan: Plan, sets: Sequence[ConditionSet]) -> Iterator[Job]:
    """For the estimate: the strengths do not matter, one way of equal cost is tested."""
    yield from jobs_of_tuning(plan, sets)
    untested = EQUAL_COST[1] if plan.tunings else None
    yield from jobs_of_test(plan, sets, lambda _, name: None if name == untested else 1.0)
    yield from jobs_of_ablations(plan, sets, lambda _: 1.0)


def _jobs(
    stage: str,
    task: str,
    method: Method,
    strength: float,
    plan: Plan,
    sets: Sequence[ConditionSet],
) -> Iterator[Job]:
    for first in range(0, len(sets), plan.batch):
        group = tuple(sets[first : first + plan.batch])
        yield Job(stage, task, method, strength, plan.steps, group)
