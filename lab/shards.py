"""A part of the tables' jobs, for clusters without a scheduler: tasks of an array, one a card.

Each task writes a file of its own in the folder of the results and reads those of all others, so
that a run without a shard finds everything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .jobs import Job
from .results import Store

__all__ = ["Shard", "opened_store"]

WHOLE = "runs.jsonl"


@dataclass(frozen=True)
class Shard:
    """Every ``count``-th job, from number ``index`` on, which counts from 0."""

    index: int
    count: int

    @staticmethod
    def parse(text: str) -> "Shard":
        """What ``i/n`` says.

        Raises:
            ValueError: it says something else.
        """
        index, _, count = text.partition("/")
        if index.isdigit() and count.isdigit() and int(index) < int(count):
            return Shard(int(index), int(count))
        raise ValueError(f"expected i/n with i from 0 to n - 1, got '{text}'")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def file(self) -> str:
        """The name of its part of the store."""
        return f"runs-{self.index}-of-{self.count}.jsonl"

    def of(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Its jobs, of all that the plan has; whether they are done plays no part."""
        return jobs[self.index :: self.count]


def opened_store(folder: Path, shard: Shard | None) -> Store:
    """What all have measured so far; a shard adds to its own file."""
    own = folder / (shard.file if shard else WHOLE)
    others = sorted({folder / WHOLE, *folder.glob("runs-*.jsonl")} - {own})
    return Store(own, others)
