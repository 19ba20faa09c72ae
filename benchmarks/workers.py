"""Who carries out the jobs of the tables: this process, or several on one accelerator."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from .world import DemoWorld  # noqa: F401  # first: it brings the host and the pack

# isort: split
from .condition_sets import ConditionSet
from .experiment import Experiment
from .jobs import Job

__all__ = ["carried_out", "open_pool"]

# How a worker makes what it needs: the experiment, and a job's condition sets by their numbers.
Recipe = Callable[[], tuple[Experiment, Callable[[Job, Sequence[int]], Sequence[ConditionSet]]]]


def open_pool(workers: int, recipe: Recipe):
    """Processes that wait for jobs; ``recipe`` is a function of a module, or a partial of one."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // workers)
    return context.Pool(workers, initializer=_open, initargs=(recipe, threads))


def carried_out(
    jobs: Sequence[Job], experiment: Experiment, pool=None
) -> Iterator[tuple[Job, list[dict]]]:
    """Each job with what it measured, in any order.

    Args:
        experiment: carries them out in this process, if there is no pool.
    """
    if pool is None:
        for job in jobs:
            yield job, experiment.measured(job)
        return
    # Condition sets are pictures: their numbers go to the workers, which have read them too.
    parcels = [
        (place, replace(job, sets=()), [wanted.number for wanted in job.sets])
        for place, job in enumerate(jobs)
    ]
    for place, rows in pool.imap_unordered(_carry_out, parcels):
        yield jobs[place], rows


_opened: tuple = ()  # of a worker process, made by its initializer


def _open(recipe: Recipe, threads: int) -> None:
    global _opened
    torch.set_num_threads(threads)
    _opened = recipe()


def _carry_out(parcel: tuple[int, Job, list[int]]) -> tuple[int, list[dict]]:
    place, job, numbers = parcel
    experiment, sets = _opened
    return place, experiment.measured(replace(job, sets=tuple(sets(job, numbers))))
