"""What a plan asks for, in the order in which it is done."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .condition_sets import ConditionSet
from .methods import ABLATIONS, TUNED_AS, UNGUIDED, Method, of_equal_cost
from .plan import Plan
from .results import Run
from .tasks import ABLATION_TASK, MANY, attributes_of

__all__ = [
    "Job",
    "estimated_jobs",
    "jobs_of_ablations",
    "jobs_of_strengths",
    "jobs_of_test",
    "jobs_of_tuning",
]


@dataclass(frozen=True, eq=False)
class Job:
    """A method with its strength on the condition sets of one batch."""

    stage: str
    task: str
    method: Method
    strength: float
    steps: int
    sets: tuple[ConditionSet, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """The entries of the store that this job fills."""
        steps = self.steps * self.method.more_steps
        return tuple(
            Run(self.stage, self.task, self.method.name, self.strength, steps, each.number)
            for each in self.sets
        )

    @property
    def evaluations(self) -> float:
        """Return how often the model is evaluated for all pictures, forwards and backwards."""
        each = self.method.evaluations(len(attributes_of(self.task)))
        return each * self.steps * len(self.sets)


def jobs_of_tuning(plan: Plan, sets: Sequence[ConditionSet]) -> Iterator[Job]:
    """Every method with every strength, on people that the tables do not show."""
    for task in plan.tasks:
        wanted = {
            method.name: plan.strengths if method.guided else (0.0,)
            for method in plan.rows(task)
            if method.name == UNGUIDED or method.guided and method.name not in TUNED_AS
        }
        yield from jobs_of_strengths(plan, sets, task, wanted)


def jobs_of_strengths(
    plan: Plan, sets: Sequence[ConditionSet], task: str, wanted: Mapping[str, Sequence[float]]
) -> Iterator[Job]:
    """Some methods of a task with some strengths each, on the sets of the tuning."""
    if not plan.tunings:
        return
    for method in plan.rows(task):
        for strength in wanted.get(method.name, ()):
            yield from _jobs("tune", task, method, strength, plan, sets[: plan.tunings])


def jobs_of_test(
    plan: Plan, sets: Sequence[ConditionSet], strengths: Callable[[str, str], float | None]
) -> Iterator[Job]:
    """Every method with the strength chosen for it; None leaves a method out."""
    # All methods on some sets before all others: the table of a run that is stopped has fewer sets.
    for group in _groups(sets[: plan.tests], plan.batch):
        for task in plan.tasks:
            for method in plan.rows(task):
                strength = strengths(task, method.name) if method.guided else 0.0
                if strength is not None:
                    yield Job("test", task, method, strength, plan.steps, group)


def jobs_of_ablations(
    plan: Plan, sets: Sequence[ConditionSet], strength: Callable[[Method], float]
) -> Iterator[Job]:
    """The variants of the paper's method, all with its strength."""
    for study in plan.studies:
        for method in ABLATIONS[study]:
            task = ABLATION_TASK if method.conditions is None else MANY
            yield from _jobs(study, task, method, strength(method), plan, sets[: plan.ablations])


def estimated_jobs(plan: Plan, sets: Sequence[ConditionSet]) -> Iterator[Job]:
    """The jobs as far as their time goes, before strengths are chosen.

    Strengths do not matter for it, and one way of equal cost is tested.
    """
    yield from jobs_of_tuning(plan, sets)

    def strength(task: str, name: str) -> float | None:
        ways = of_equal_cost(method.name for method in plan.rows(task))
        return None if name in ways[1:] else 1.0

    yield from jobs_of_test(plan, sets, strength)
    yield from jobs_of_ablations(plan, sets, lambda _: 1.0)


def _jobs(
    stage: str,
    task: str,
    method: Method,
    strength: float,
    plan: Plan,
    sets: Sequence[ConditionSet],
) -> Iterator[Job]:
    for group in _groups(sets, plan.batch):
        yield Job(stage, task, method, strength, plan.steps, group)


def _groups(sets: Sequence[ConditionSet], size: int) -> Iterator[tuple[ConditionSet, ...]]:
    for first in range(0, len(sets), size):
        yield tuple(sets[first : first + size])
