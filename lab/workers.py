"""Who carries out the jobs of the tables: this process, or several on one accelerator."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import torch

from .world import DemoWorld  # noqa: F401  # first: it brings the host and the pack

# isort: split
from .condition_sets import ConditionSet
from .experiment import Experiment
from .jobs import Job

__all__ = ["PACK", "Recipe", "carried_out", "open_pool", "open_worker", "threads_of"]

PACK = str(Path(__file__).resolve().parents[1])

# How a worker makes what it needs: the experiment, and a job's condition sets by their numbers.
Recipe = Callable[[], tuple[Experiment, Callable[[Job, Sequence[int]], Sequence[ConditionSet]]]]


def open_pool(workers: int, recipe: Recipe) -> Executor:
    """Processes that carry out jobs; one that cannot start ends the run with its error.

    Args:
        recipe: a function of a module, or a partial of one.
    """
    # They import this package by the path of this process, from which ``load_host`` has taken it.
    # At the end of it the host's modules keep their names.
    if PACK not in sys.path:
        sys.path.append(PACK)
    return ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("spawn"),
        initializer=open_worker,
        initargs=(recipe, threads_of(workers)),
    )


def threads_of(workers: int) -> int:
    """The threads that each of several workers on this machine may use."""
    return max(1, (os.cpu_count() or 1) // workers)


def carried_out(
    jobs: Sequence[Job], experiment: Experiment, pool: Executor | None = None
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
    waiting = {
        pool.submit(_carry_out, replace(job, sets=()), [wanted.number for wanted in job.sets]): job
        for job in jobs
    }
    try:
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    finally:  # interrupted or failed: what has not begun is left
        for future in waiting:
            future.cancel()


_opened: tuple = ()  # of a worker process


def open_worker(recipe: Recipe, threads: int | None) -> None:
    """Make what the jobs of this process need."""
    global _opened
    if threads is not None:
        torch.set_num_threads(threads)
    _opened = recipe()


def _carry_out(job: Job, numbers: list[int]) -> list[dict]:
    experiment, sets = _opened
    return experiment.measured(replace(job, sets=tuple(sets(job, numbers))))
