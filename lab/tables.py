"""Guide the demo model by the paper's three tasks, and by baselines, and write the tables.

    python -m lab.tables --portraits FOLDER [--quick]

Condition sets come from synthetic portraits of people that no network was trained on; every method
gets the same noise. Strengths are chosen for every method on other people, by the evaluators, on a
grid that grows while the best is at an end of it (beyond the planned time). Best of N makes as many
pictures as the operations of another row allow. --quick takes 5 minutes without that choice and
without ablations, the full run up to --hours; stop it at any time, the same command goes on.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .world import DemoWorld  # first: it brings the host and the pack

# isort: split
import comfy.utils

from .attributes import Attribute
from .budget import Cost, chosen_plan
from .choice import Choice, choose, next_strengths
from .condition_sets import ConditionSet, condition_sets, held_out
from .experiment import Experiment
from .jobs import (
    Job,
    estimated_jobs,
    jobs_of_ablations,
    jobs_of_strengths,
    jobs_of_test,
    jobs_of_tuning,
)
from .methods import ABLATIONS, BASELINE, FAITHFUL, Method, methods
from .networks import Networks
from .options import QUICK_MINUTES, digest, needed_attributes, read_command_line
from .pictures import Pictures
from .plan import UNTUNED, Plan
from .report import found_rows, overview, summarize, tables
from .results import Store
from .shards import Shard, opened_store
from .table_figures import write_figures, write_ranks
from .tasks import ABLATION_TASK, MANY, attributes_of
from .workers import carried_out, open_pool

PACK = Path(__file__).resolve().parents[1]
# Steps by which operations are compared if their number is not given: in plain pictures they hardly
# depend on it.
COUNTED_STEPS = 5
# What the rows of an ablation are compared with.
REFERENCES = {
    "dependence": "off",
    "balance": "sum",
    "order": "symmetric",
    "look-ahead": "kappa = 0.1",
}


def main() -> None:
    started = time.perf_counter()
    options = read_command_line(__doc__)
    comfy.utils.PROGRESS_BAR_ENABLED = False
    studies = () if options.quick else tuple(options.studies)
    attributes = needed_attributes(options, studies)
    whole = options.folder or PACK / "output" / ("tables-quick" if options.quick else "tables")
    several = len(options.steps) > 1
    folders = [whole / f"{steps} steps" if several else whole for steps in options.steps]
    for folder in folders if options.shard else ():  # before networks are loaded for nothing
        if not _plan_file(folder).is_file():
            sys.exit(f"{folder} has no plan, which all shards share: make it with --plan first")
    experiment = _experiment(options, attributes, whole)
    tried = min(options.batch, len(held_out(options.portraits, "test")))
    cost = _cost(experiment, options.tasks[0], _sets(options, "test", tried))
    share = 60.0 * (QUICK_MINUTES if options.quick else 60.0 * options.hours) / len(options.steps)
    seconds = share - (time.perf_counter() - started)
    for steps, folder in zip(options.steps, folders, strict=True):
        _carry_out(options, steps, folder, experiment, cost, seconds)
        seconds = share


def _carry_out(
    options: argparse.Namespace,
    steps: int | None,
    folder: Path,
    experiment: Experiment,
    cost: Cost,
    seconds: float,
) -> None:
    """The tables of one number of steps, None for as many as there is time for."""
    studies = () if options.quick else tuple(options.studies)
    experiment = replace(experiment, pictures=Pictures(folder))
    shard = options.shard
    store = opened_store(folder, shard)
    asked = {
        "tasks": tuple(options.tasks),
        "studies": studies,
        "methods": tuple(options.methods),
        "made_with": digest(options, experiment.attributes.values()),
        "prompts": options.prompts == "on",
        **{key: n for key, n in (("steps", steps), ("tests", options.sets)) if n},
    }
    plan = Plan.load(_plan_file(folder))
    if plan is None:
        asked["candidates"] = _candidates(options, experiment, steps or COUNTED_STEPS)
        sets = partial(_sets, options, "test")
        plan, expected = chosen_plan(
            options.quick, seconds, cost, sets, batch=options.batch, **asked
        )
        if expected > seconds:
            print("This machine is too slow for its time: the smallest plan takes longer.")
        plan.save(_plan_file(folder))
    if plan != replace(plan, **asked):
        sys.exit(
            f"{folder} holds results of other tasks, studies, methods, steps, sets, prompts, "
            "networks or portraits; choose another --folder or remove it"
        )
    tables_of = Tables(plan, experiment, store, partial(_sets, options), cost, shard)
    tables_of.announce(folder)
    if options.plan:
        return
    with _pool(options, studies, folder) as pool:
        tables_of.run(pool)
    if shard:
        print(f"The part {shard} of the plan is in {store.path}.")
        return
    features = experiment.features
    reference = None if features is None else _reference(options.portraits, features)
    tables_of.write(folder, reference)


def _plan_file(folder: Path) -> Path:
    return folder / "plan.json"


def _experiment(
    options: argparse.Namespace, attributes: Mapping[str, Attribute], folder: Path
) -> Experiment:
    features = _features(options.evaluator_networks)
    prompts = options.prompts == "on"
    world = DemoWorld(options.few_steps)
    return Experiment(world, attributes, features, Pictures(folder), prompts=prompts)


def _candidates(
    options: argparse.Namespace, experiment: Experiment, steps: int
) -> dict[str, dict[str, int]]:
    """Task and row to the pictures that the operations of the row it is like allow."""
    found: dict[str, dict[str, int]] = {}
    (first,) = _sets(options, "test", 1)
    for task in options.tasks:
        rows = {method.name: method for method in methods(len(attributes_of(task)))}
        found[task] = {
            name: experiment.candidates_of(task, method, rows[method.like], [first], steps)
            for name, method in rows.items()
            if method.like and (not options.methods or name in options.methods)
        }
    return found


def _pool(
    options: argparse.Namespace, studies: Sequence[str], folder: Path
) -> AbstractContextManager[Executor | None]:
    """The processes that carry out the jobs; None: this one."""
    recipe = partial(_opened, options, studies, folder)
    if options.scheduler:
        from .cluster import open_cluster  # Dask is optional

        return open_cluster(options.scheduler, recipe)
    return open_pool(options.workers, recipe) if options.workers > 1 else nullcontext()


def _opened(options: argparse.Namespace, studies: Sequence[str], folder: Path) -> tuple:
    """The experiment and the condition sets of a worker process; see ``workers``."""
    comfy.utils.PROGRESS_BAR_ENABLED = False
    experiment = _experiment(options, needed_attributes(options, studies), folder)

    def sets(job: Job, numbers: Sequence[int]) -> list[ConditionSet]:
        known = _sets(options, "tune" if job.stage == "tune" else "test", max(numbers) + 1)
        return [known[number] for number in numbers]

    return experiment, sets


class Tables:
    """A plan carried out.

    Args:
        sets: stage and number to condition sets.
        shard: the part of the jobs that is done; None for all.
    """

    def __init__(
        self,
        plan: Plan,
        experiment: Experiment,
        store: Store,
        sets: Callable[[str, int], Sequence[ConditionSet]],
        cost: Cost,
        shard: Shard | None = None,
    ):
        self.shard = shard
        self.plan, self.experiment, self.store, self.cost = plan, experiment, store, cost
        self.tuned_on = sets("tune", plan.tunings) if plan.tunings else []
        self.tested_on = sets("test", plan.tests)

    def announce(self, folder: Path) -> None:
        """The plan and its time, before it begins."""
        plan = self.plan
        left = self.cost.of(self._known_jobs(), self.store)
        print(
            f"{', '.join(plan.tasks)}: {plan.tests} condition sets, {plan.steps} steps, batches "
            f"of {plan.batch}; strengths {', '.join(f'{s:g}' for s in plan.strengths)} tried on "
            f"{plan.tunings} other sets; ablations {', '.join(plan.studies) or 'none'} on "
            f"{plan.ablations} sets.\n"
            f"A model evaluation takes {1e3 * self.cost.evaluation:.0f} ms a picture: about "
            f"{left / 60.0:.0f} minutes are left to do. Results: {folder}",
            flush=True,
        )

    def _known_jobs(self) -> list[Job]:
        """All jobs, with the strengths if they are chosen by now."""
        tuning = list(jobs_of_tuning(self.plan, self.tuned_on))
        if all(run in self.store for job in tuning for run in job.runs):
            return self._chosen_jobs()
        return list(estimated_jobs(self.plan, self.tested_on))

    def run(self, pool: Executor | None = None) -> None:
        """Tune, then test and ablate; what is in the store already is not repeated."""
        jobs = list(jobs_of_tuning(self.plan, self.tuned_on))
        while jobs:
            self._all(jobs, pool)
            if not all(run in self.store for job in jobs for run in job.runs):
                print("Start this once more when all shards are through: strengths are not chosen.")
                return
            jobs = self._more_strengths()
        self._all(self._chosen_jobs(), pool)

    def _more_strengths(self) -> list[Job]:
        """The jobs by which the grid of strengths grows, where the best is at an end of it."""
        jobs: list[Job] = []
        for task in self.plan.tasks if self.plan.tunings else ():
            strongest = {each.name: each.settings.strongest for each in self.plan.rows(task)}
            following = next_strengths(self.choice(task).scores, strongest)
            wanted = {name: (strength,) for name, strength in following.items()}
            jobs += jobs_of_strengths(self.plan, self.tuned_on, task, wanted)
        return jobs

    def write(self, folder: Path, reference: Tensor | None) -> None:
        """JSON, Markdown, sheets of pictures and plots."""
        content, parts, by_task = {"plan": asdict(self.plan)}, [], {}
        for task in self.plan.tasks:
            choice = self.choice(task)
            found = found_rows(self.store, "test", task, choice.strengths)
            by_task[task] = summaries = summarize(found, BASELINE, reference)
            content[task] = {
                "rows": [asdict(summary) for summary in summaries],
                "tuning": choice.scores,
            }
            counts = self.plan.candidates.get(task, {})
            parts.append(tables(task, summaries, BASELINE, counts))
            if self.experiment.pictures is not None:
                sheet = folder / f"{task.replace(' + ', '_')}.png"
                self.experiment.pictures.sheet(task, choice.strengths, self.tested_on, sheet)
        for study in self.plan.studies:
            for title, baseline, found in self._ablation(study):
                summaries = summarize(found, baseline, reference)
                content[title] = {"rows": [asdict(summary) for summary in summaries]}
                parts.append(tables(title, summaries, baseline))
        text = "\n".join((overview(by_task, BASELINE), *parts))
        if not self.plan.tunings:
            text = f"All strengths are {self.plan.strengths[0]:g}, not tuned.\n\n{text}"
        (folder / "tables.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        (folder / "tables.md").write_text(text, encoding="utf-8")
        write_figures(self.store, self.plan, {t: self.choice(t) for t in self.plan.tasks}, folder)
        write_ranks(by_task, self.plan, folder)
        print(text)

    def choice(self, task: str) -> Choice:
        """The strengths of a task, once its tuning is done."""
        names = [method.name for method in self.plan.rows(task)]
        return choose(self.store, task, names, self.plan.strengths)

    def _chosen_jobs(self) -> list[Job]:
        choices = {task: self.choice(task) for task in self.plan.tasks}
        jobs = jobs_of_test(
            self.plan, self.tested_on, lambda task, name: choices[task].strengths.get(name)
        )
        return [*jobs, *jobs_of_ablations(self.plan, self.tested_on, self._strength)]

    def _strength(self, method: Method) -> float:
        """The strength of an ablation: that of the method it varies."""
        strengths = self.choice(ABLATION_TASK).strengths
        return strengths[BASELINE if method.name.startswith(BASELINE) else FAITHFUL]

    def _ablation(self, study: str) -> Iterable[tuple[str, str, Mapping]]:
        """Title, baseline and measurements of the tables of an ablation."""
        variants = ABLATIONS[study]
        task = ABLATION_TASK if variants[0].conditions is None else MANY
        strengths = {method.name: self._strength(method) for method in variants}
        found = found_rows(self.store, study, task, strengths)
        if task != MANY:
            yield f"{study}: {task}", REFERENCES[study], found
            return
        for n in sorted({method.conditions for method in variants}):
            ending = f", n = {n}"
            pair = {name: rows for name, rows in found.items() if name.endswith(ending)}
            yield f"{study}: {n}", BASELINE + ending, pair

    def _all(self, jobs: Sequence[Job], pool: Executor | None) -> None:
        jobs = self.shard.of(jobs) if self.shard else jobs
        jobs = [job for job in jobs if not all(run in self.store for run in job.runs)]
        expected, started = self.cost.of(jobs), time.perf_counter()
        done = 0.0
        for job, rows in carried_out(jobs, self.experiment, pool):
            self.store.add(zip(job.runs, rows, strict=True))
            done += self.cost.of([job])
            spent = time.perf_counter() - started
            print(
                f"{job.stage}: {job.task}, {job.method.name}, {job.strength:g}, sets "
                f"{job.sets[0].number} to {job.sets[-1].number}; "
                f"{spent / done * (expected - done) / 60.0:.0f} minutes left",
                file=sys.stderr,
                flush=True,
            )


def _cost(experiment: Experiment, task: str, sets: Sequence[ConditionSet]) -> Cost:
    """The cost of one picture, measured by one step of the baseline, after one to warm up."""
    method = next(m for m in methods(len(attributes_of(task))) if m.name == BASELINE)
    job = Job("cost", task, method, UNTUNED[0], 1, tuple(sets))
    for _ in range(2):
        started = time.perf_counter()
        rows = experiment.measured(job)
        wall = time.perf_counter() - started
    sampling = rows[0]["seconds"]
    evaluations = job.evaluations / len(sets)
    return Cost(sampling / evaluations, max(0.0, wall / len(sets) - sampling))


def _sets(options: argparse.Namespace, stage: str, count: int) -> list[ConditionSet]:
    return condition_sets(options.portraits, stage, count)


def _features(evaluators: Networks) -> Callable[[Tensor], Tensor] | None:
    """Return what the Frechet distance compares: embeddings by the evaluators' CLIP."""
    if evaluators.missing("clip"):
        print(f"No Frechet distance: {evaluators.missing('clip')}.", file=sys.stderr)
        return None
    clip = evaluators.clip
    return lambda pictures: clip.image(clip.preprocessing(pictures))


def _reference(portraits: Path, features: Callable[[Tensor], Tensor]) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        return torch.cat([features(each.picture) for each in held_out(portraits, "test")])


if __name__ == "__main__":
    main()
