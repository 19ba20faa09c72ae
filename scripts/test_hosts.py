"""What depends on the host, tested on several ComfyUI versions in turn, printed as one table.

``make test-hosts`` calls this with the folders of all versions that can be had. A version that is
older than the pack needs must say so in one sentence; that is all that is tested there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from headless import PACK, load_pack
from host_archive import version_of
from host_server import environment
from packages import STATE, say, venv_python

__all__ = ["main"]

TESTS = "tests/host"
# Columns of the table: which tests, by the names of their files; of a file of many, some of them.
PARTS = {
    "start": "test_start*.py",
    "contract": "test_*contract*.py",
    "gradients": "test_*gradients*.py",
    "hooks": "test_*hooks*.py",
    "decoders": "test_*decoders*.py",
    "workflow": "test_workflows.py",
}
WORKFLOW_TEST = "test_the_summary_of_a_comparison_has_energies_cosines_and_cost"

# Seconds after which a version is given up; minutes are usual, more on a busy machine.
LIMIT = 3600.0


class Count(NamedTuple):
    """The numbers of tests of a part that passed, failed and were skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        words = [f"{self.passed}"]
        words += [f"{self.failed} FAILED"] * bool(self.failed)
        words += [f"{self.skipped} skipped"] * bool(self.skipped)
        return ", ".join(words) if any(self) else "-"


class Row(NamedTuple):
    """The results of one version."""

    version: str
    counts: dict[str, Count]
    seconds: float
    trouble: str = ""

    @property
    def good(self) -> bool:
        return not self.trouble and not any(count.failed for count in self.counts.values())


def main(folders: list[str]) -> int:
    """Test every host in ``folders``; 1 if any test failed."""
    rows = []
    for folder in map(Path, folders):
        rows.append(test_host(folder))
        say(f"ComfyUI {rows[-1].version}: {'passed' if rows[-1].good else 'FAILED'}")
    print(table(rows), flush=True)
    return int(not all(row.good for row in rows))


def test_host(folder: Path) -> Row:
    """Run the tests on the ComfyUI in ``folder``."""
    version = version_of(folder) or "unknown"
    report = STATE / "hosts" / f"{version}.xml"
    report.unlink(missing_ok=True)
    parts = ["start"] if is_too_old(version) else list(PARTS)
    say(f"ComfyUI {version}: {', '.join(parts)}")
    command = [venv_python(), "-m", "pytest", f"--junitxml={report}", *selection(parts)]
    command += ["--continue-on-collection-errors", "-o", "console_output_style=times"]
    started, trouble = time.monotonic(), ""
    try:
        subprocess.run(command, cwd=PACK, env=variables(folder), timeout=LIMIT)
    except subprocess.TimeoutExpired:
        trouble = f"not done after {LIMIT:.0f} s"
    if not report.is_file() and not trouble:
        trouble = "pytest stopped before it had a result"
    counts = counts_of(report) if report.is_file() else {}
    untested = [part for part in parts if not any(counts.get(part, ()))]
    if untested and not trouble:
        trouble = f"no test ran of {', '.join(untested)}"
    return Row(version, counts, time.monotonic() - started, trouble)


def is_too_old(version: str) -> bool:
    """Return whether the pack refuses to run on this version."""
    load_pack()
    from zmagic.host.version import refuse_old_host

    try:
        refuse_old_host(version)
    except RuntimeError:
        return True
    return False


def selection(parts: list[str]) -> list[str]:
    """Return the arguments that pytest is given for these parts."""
    files = [file for part in parts for file in sorted((PACK / TESTS).glob(PARTS[part]))]
    return [
        f"{file}::{WORKFLOW_TEST}" if file.name == PARTS["workflow"] else str(file)
        for file in files
    ]


def variables(folder: Path) -> dict[str, str]:
    """The environment in which scripts and tests use the host in ``folder`` and write none of it.

    Python's cache files go where each version has its own.
    """
    cache = str(STATE / "pycache")
    return environment() | {"COMFYUI_PATH": str(folder), "PYTHONPYCACHEPREFIX": cache}


def counts_of(report: Path) -> dict[str, Count]:
    """Passed, failed and skipped tests of each part, from pytest's JUnit report."""
    counts: dict[str, Count] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        # A file that could not be read stands there as a case without a class.
        where = (case.get("classname") or case.get("name") or "").split(".")
        part = next((p for p in PARTS if any(_is_of(p, name) for name in where)), "start")
        outcome = {child.tag for child in case}
        failed = bool(outcome & {"failure", "error"})
        skipped = "skipped" in outcome
        one = Count(not failed and not skipped, failed, skipped)
        counts[part] = Count(*map(sum, zip(counts.get(part, Count()), one, strict=True)))
    return counts


def _is_of(part: str, name: str) -> bool:
    return Path(f"{name}.py").match(PARTS[part])


def table(rows: list[Row]) -> str:
    """A Markdown table of the rows."""
    head = ["ComfyUI", *PARTS, "seconds", ""]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        note = row.trouble or ("refused in a sentence" if is_too_old(row.version) else "")
        cells = [str(row.counts.get(part, Count())) for part in PARTS]
        lines.append([row.version, *cells, f"{row.seconds:.0f}", note])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


if __name__ == "__main__":
    os.chdir(PACK)
    sys.exit(main(sys.argv[1:]))
