"""Makes portraits in this process, or in several processes of one thread each."""

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from .dataset import describe, save
from .draws import draw_identity, draw_sitting
from .head import HeadModel
from .people import COLORINGS
from .rendering import Renderer, Traced
from .scene import Portrait, build

__all__ = ["Job", "Studio", "Task", "make_all"]

Task = tuple[int, int]  # identity, picture


@dataclass(frozen=True)
class Job:
    """The settings that all pictures of a run share.

    Args:
        out: folder of the data set, which exists.
        seed: seed of everything that is drawn at random.
        size: pixels per side.
        samples: paths per quarter pixel.
        variant: Mitsuba's.
    """

    out: Path
    seed: int
    size: int
    samples: int
    variant: str


class Studio:
    """The head model and the renderer of one process, of which one thread computes.

    Raises:
        ImportError: the package anny or mitsuba is not installed.
    """

    def __init__(self, job: Job) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        self.job = job
        self.renderer = Renderer(job.variant, job.size, job.samples)
        import drjit  # comes with mitsuba, and follows its variant

        drjit.set_thread_count(1)
        self.model = HeadModel()
        # The last tracing, of which the next picture may be another coloring.
        self.last: tuple[Task, Portrait, Traced] | None = None

    def make(self, task: Task) -> dict:
        """Writes the files of one portrait and returns its labels."""
        identity, picture = task
        labels = (self.model.phenotype_labels, self.model.shape_labels)
        person = draw_identity(self.job.seed, identity, *labels)
        sitting = draw_sitting(self.job.seed, person, picture)
        place = (identity, sitting.number)
        if self.last is None or self.last[0] != place:
            portrait = build(self.model, person, sitting)
            self.last = (place, portrait, self.renderer.traced(portrait, person, sitting))
        _, portrait, traced = self.last
        line = describe(person, sitting, portrait)
        save(self.job.out, self.renderer.colored(traced, sitting), traced.mask, line)
        return line


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
        yield from pool.imap(_make, tasks, chunksize=COLORINGS)
