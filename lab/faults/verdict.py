"""Whether a sweep lost nothing, made nothing twice, and made what one host makes alone."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Pace", "Verdict", "compared", "pace"]


@dataclass(frozen=True)
class Verdict:
    """Numbers of variants.

    Args:
        lost: not in the store, or without their picture.
        double: kept more than once, or with more than one picture.
        different: not bit-equal to the same variant made by one host alone.
    """

    variants: int
    lost: int
    double: int
    different: int

    @property
    def good(self) -> bool:
        return not (self.lost or self.double or self.different)


def compared(folder: Path, alone: Path) -> Verdict:
    """Compare the sweep in ``folder`` with the same one in ``alone``."""
    expected = {row["prompt"]: row for row in _rows(alone)}
    rows = _rows(folder)
    found = {row["prompt"]: row for row in rows}
    pictures = {file.name: _digest(file) for file in (folder / "pictures").iterdir()}
    whole = {
        prompt: row
        for prompt, row in found.items()
        if all(Path(name).name in pictures for name in row["files"])
    }
    named = sum(len(row["files"]) for row in whole.values())
    different = [
        prompt
        for prompt, row in whole.items()
        if prompt in expected
        and [pictures[Path(name).name] for name in row["files"]] != expected[prompt]["sha256"]
    ]
    return Verdict(
        variants=len(expected),
        lost=len(expected.keys() - whole.keys()),
        double=len(rows) - len(found) + len(pictures) - named,
        different=len(different),
    )


@dataclass(frozen=True)
class Pace:
    """How fast a sweep went, from its first picture to its last.

    Args:
        seconds: a variant takes, all hosts together.
        overhead: seconds of a host a variant that it was not at the graph.
    """

    seconds: float
    overhead: float


def pace(folder: Path, hosts: int) -> Pace:
    """How fast a sweep was in which nothing broke."""
    times = [file.stat().st_mtime for file in (folder / "pictures").iterdir()]
    seconds = (max(times) - min(times)) / (len(times) - 1)
    at_graphs = sorted(row["seconds"] for row in _rows(folder))
    # The first graph of a host loads the models, and the pictures are counted from its end.
    usual = at_graphs[: len(at_graphs) - hosts]
    return Pace(seconds, seconds * hosts - sum(usual) / len(usual))


def _rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text("utf-8").splitlines()]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
