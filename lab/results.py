"""Where the runs of the tables are kept, so that an interrupted one goes on where it stopped.

A file of JSON lines: each is one picture, with the run it belongs to and what was measured. A run
that was cut short in the middle of a line is repeated, nothing else.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.json_lines import JsonLines

__all__ = ["Run", "Store", "markdown"]


@dataclass(frozen=True)
class Run:
    """The choices that make one picture: the same run is never made twice.

    Args:
        stage: "tune", "test" or the name of an ablation.
        task, method: names of the task and of the method.
        strength: strength of the guidance.
        steps: steps of the sampler.
        number: place of the condition set in its split.
    """

    stage: str
    task: str
    method: str
    strength: float
    steps: int
    number: int


class Store:
    """The measurements of all runs so far, in memory and in a file.

    Args:
        path: the file; it is made when the first measurement comes.
        others: files of other processes, which are read and not written.

    Raises:
        ValueError: the file holds something else.
    """

    def __init__(self, path: Path, others: Iterable[Path] = ()):
        self.path = path
        self._lines = JsonLines(path)
        self._kept: dict[Run, dict] = {}
        for file in (*others, path):
            self._read(file)

    def __contains__(self, run: Run) -> bool:
        return run in self._kept

    def __getitem__(self, run: Run) -> dict:
        return self._kept[run]

    def __iter__(self) -> Iterator[Run]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def _read(self, path: Path) -> None:
        for line in JsonLines(path).read():
            row = json.loads(line)
            try:
                self._kept[Run(**row["run"])] = row["measured"]
            except (KeyError, TypeError) as error:
                raise ValueError(
                    f"{path} does not hold the runs of these tables ({error}); remove it or "
                    "choose another folder"
                ) from error

    def add(self, rows: Iterable[tuple[Run, dict]]) -> None:
        """Keep what was measured; on the disk when this returns."""
        rows = list(rows)
        self._lines.add({"run": asdict(run), "measured": row} for run, row in rows)
        self._kept.update(rows)


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; numbers with three significant digits, None as an empty cell."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
