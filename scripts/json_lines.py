"""A file of JSON lines that only grows: whatever interrupts it costs the line being written."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["JsonLines"]


class JsonLines:
    """The lines of a file, which need not be there.

    Args:
        path: the file; it is made, with its folder, when the first line comes.
    """

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> list[str]:
        """The whole lines, without their ends, and without one that an interruption left."""
        if not self.path.is_file():
            return []
        *whole, _ = self.path.read_text(encoding="utf-8").split("\n")
        return whole

    def add(self, values: Iterable[Any]) -> None:
        """Add a line for each value, all of them or none; on the disk when this returns.

        Raises:
            OSError: the disk is full, or the like.
        """
        lines = "".join(json.dumps(value) + "\n" for value in values)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._whole()
        try:
            with self.path.open("ab") as file:
                file.truncate(whole)
                file.write(lines.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            if self.path.is_file():
                os.truncate(self.path, whole)
            raise

    def _whole(self) -> int:
        """Bytes up to the end of the last whole line."""
        return self.path.read_bytes().rfind(b"\n") + 1 if self.path.is_file() else 0
