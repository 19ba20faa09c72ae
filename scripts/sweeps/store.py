"""Where a sweep keeps what it has: pictures, and a line for each variant in ``rows.jsonl``.

A line is added when its pictures are on the disk, so that whatever stops a sweep leaves no line
without its pictures and at most one picture without its line, which the next run replaces.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from json_lines import JsonLines

from .runs import Made
from .variations import Variant

__all__ = ["SweepStore"]

NAME_LENGTH = 16  # letters of a digest that name its pictures


class SweepStore:
    """The variants that are made.

    Args:
        folder: is made when the first one comes.

    Raises:
        ValueError: the folder holds something else.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._lines = JsonLines(folder / "rows.jsonl")
        self._rows: dict[str, dict] = {}
        for number, line in enumerate(self._lines.read(), 1):
            try:
                row = json.loads(line)
                self._rows[row["prompt"]] = row
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self._lines.path}, line {number}, is no row of a sweep; choose another "
                    "--folder"
                ) from error

    def __contains__(self, variant: Variant) -> bool:
        """Whether the variant is made, and its pictures are still there."""
        row = self._rows.get(variant.digest)
        return row is not None and all((self.folder / name).is_file() for name in row["files"])

    def __iter__(self) -> Iterator[dict]:
        return iter(self._rows.values())

    def row(self, variant: Variant) -> dict:
        """What is known of a variant that is made."""
        return self._rows[variant.digest]

    def add(self, made: Made) -> bool:
        """Keep pictures and row, on the disk when this returns; False if they are there already.

        Raises:
            OSError: the disk is full, or the like; neither a row nor half a picture is left.
        """
        variant = made.variant
        if variant in self:
            return False
        names = [
            f"pictures/{variant.digest[:NAME_LENGTH]}-{k}.png" for k in range(len(made.pictures))
        ]
        (self.folder / "pictures").mkdir(parents=True, exist_ok=True)
        for name, content in zip(names, made.pictures, strict=True):
            _write(self.folder / name, content)
        row = {
            "prompt": variant.digest,
            "chosen": dict(variant.chosen),
            "host": made.host,
            "seconds": made.seconds,
            "energies": {name: list(values) for name, values in made.energies.items()},
            "warnings": list(made.warnings),
            "files": names,
            "sha256": [hashlib.sha256(content).hexdigest() for content in made.pictures],
        }
        self._lines.add([row])
        self._rows[variant.digest] = row
        return True


def _write(path: Path, content: bytes) -> None:
    """The whole file or none."""
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
