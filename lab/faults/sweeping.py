"""A sweep in a process of its own, watched by what it has kept."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from host_server import environment

from . import PACK

__all__ = ["LIMIT", "LOOK_SECONDS", "Sweep", "Work", "demo", "descendant", "leashed", "plain"]

GRAPH = PACK / "workflows" / "api" / "text_and_identity_demo.json"
PLAIN = Path(__file__).with_name("plain.json")
LEASH = PACK / "scripts" / "leash.py"
# Seconds without another picture after which the sweep itself counts as stuck.
LIMIT = 900.0
# More than by default: several faults may hit the same variant.
TRIES = 6
LOOK_SECONDS = 0.1


def leashed(command: Sequence[object], log: Path, **variables: str) -> subprocess.Popen:
    """Start a command that ends when its standard input is closed, or this process ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        return subprocess.Popen(
            [sys.executable, str(LEASH), *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=PACK,
            env={**environment(), **variables},
        )


def descendant(process: subprocess.Popen, word: str) -> psutil.Process | None:
    """The lowest process under a leash whose command line has ``word`` in it."""
    below = psutil.Process(process.pid).children(recursive=True)
    found = [each for each in below if word in " ".join(_words(each))]
    return found[-1] if found else None


@dataclass(frozen=True)
class Work:
    """The variants of a sweep.

    Args:
        variants: their number.
        graph: file in API format.
        varied: arguments of the sweep that make so many variants of it.
        picture_kib: size of a picture's file, about.
    """

    variants: int
    graph: Path
    varied: tuple[str, ...]
    picture_kib: int


def demo(variants: int) -> Work:
    """Seeds of a demo graph, which guides in two steps."""
    few = ("--vary", "Z-Magic Sampler.steps=2", "--vary", "Z-Magic Settings.preset=fast")
    return Work(variants, GRAPH, (*few, "--seeds", str(variants)), 40)


def plain(variants: int) -> Work:
    """Pictures of one color by stock nodes, which take no time."""
    colors = ",".join(map(str, range(variants)))
    return Work(variants, PLAIN, ("--vary", f"EmptyImage.color={colors}"), 4)


class Sweep:
    """The command in a process of its own.

    Args:
        folder: of the results; an earlier sweep in it goes on.
        where: ``--hosts`` or ``--scheduler`` with its value.
    """

    def __init__(self, folder: Path, work: Work, where: Sequence[str]):
        self.folder = folder
        self.command = [
            *(sys.executable, PACK / "scripts" / "sweep.py", work.graph, *work.varied),
            *("--folder", folder, *where, "--tries", TRIES),
        ]
        self.process = self._start()

    def _start(self) -> subprocess.Popen:
        return leashed(self.command, self.folder.with_suffix(".log"))

    @property
    def rows(self) -> int:
        """The number of variants that are kept."""
        file = self.folder / "rows.jsonl"
        return file.read_bytes().count(b"\n") if file.is_file() else 0

    def wait_for(self, rows: int) -> None:
        """Return when so many variants are kept, and others are not yet.

        Raises:
            RuntimeError: the sweep ended before, or is stuck.
        """
        known, since = self.rows, time.monotonic()
        while self.rows < rows:
            self._look(since)
            if self.rows != known:
                known, since = self.rows, time.monotonic()
        self._look(since)

    def wait_until_told(self, words: str) -> None:
        """Return when the sweep has told something with these words in it.

        Raises:
            RuntimeError: the sweep ended before, or is stuck.
        """
        since = time.monotonic()
        while words not in self.told:
            self._look(since)

    def _look(self, since: float) -> None:
        if self.process.poll() is not None:
            raise RuntimeError(f"the sweep ended before all was broken; it told:\n{self.end}")
        if time.monotonic() - since > LIMIT:
            raise RuntimeError(f"the sweep has made {self.rows} variants; it told:\n{self.end}")
        time.sleep(LOOK_SECONDS)

    def kill_and_go_on(self) -> None:
        """Kill it as it is, and start the same command."""
        descendant(self.process, "sweep.py").kill()
        self.process.wait()
        self.process = self._start()

    def go_on(self) -> None:
        """Start the same command again, which ended."""
        self.process.wait(LIMIT)
        self.process = self._start()

    def finished(self) -> None:
        """Wait for its end.

        Raises:
            RuntimeError: not all variants are made, or it is stuck.
        """
        known, since = self.rows, time.monotonic()
        while self.process.poll() is None and time.monotonic() - since < LIMIT:
            if self.rows != known:
                known, since = self.rows, time.monotonic()
            time.sleep(LOOK_SECONDS)
        if self.process.poll() != 0:
            raise RuntimeError(f"the sweep did not make all variants; it told:\n{self.end}")

    def stop(self) -> None:
        """End it, if it goes on."""
        self.process.stdin.close()
        self.process.wait()

    @property
    def told(self) -> str:
        """All that it has told."""
        return self.folder.with_suffix(".log").read_text(encoding="utf-8", errors="replace")

    @property
    def end(self) -> str:
        """The last lines of it."""
        return "\n".join(self.told.replace("\r", "\n").splitlines()[-12:])


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []
