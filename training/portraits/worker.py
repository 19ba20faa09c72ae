"""Makes portraits in this process, or in several processes of one thread each."""

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import drjit

from .dataset import make_portrait, save
from .geometry import HeadModel
from .rendering import Renderer

Task = tuple[int, int]  # identity, picture


@dataclass(frozen=True)
class Job:
    """What all pictures of a run share."""

    out: Path
    seed: int
    size: int
    samples: int
    variant: str


class Studio:
    """The head model and the renderer of one process."""

    def __init__(self, job: Job) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self.job = job
        self.renderer = Renderer(job.variant, job.size, job.samples)
        drjit.set_thread_count(1)
        self.model = HeadModel()

    def make(self, task: Task) -> dict:
        """Writes the files of one portrait and returns its labels."""
        image, mask, labels = make_portrait(self.model, self.renderer, self.job.seed, *task)
        save(self.job.out, image, mask, labels)
        return labels


_studio: Studio | None = None  # of a worker process, made by its initializer


def _open_studio(job: Job) -> None:
    global _studio
    _studio = Studio(job)


def _make(task: Task) -> dict:
    assert _studio is not None
    return _studio.make(task)


def make_all(job: Job, tasks: Iterable[Task], workers: int) -> Iterator[dict]:
    """Labels of the tasks in their order, as soon as each portrait is written."""
    if workers == 1:
        studio = Studio(job)
        yield from map(studio.make, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=_open_studio, initargs=(job,)) as pool:
        yield from pool.imap(_make, tasks)
