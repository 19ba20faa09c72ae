"""The host tests on the device: which of them fail there."""

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.headless import PACK

from .findings import FAILED, PASSED, SKIPPED, Finding, Setup, counted
from .processes import run_limited

# What runs on the device and is ours comes first, in case that time runs out.
FIRST = ("test_gradients", "test_hooks", "test_decoders", "test_same_seed", "test_networks")
SMALL = ("test_frozen_layers.py", "test_decoders.py")
CORES_OF_ONE = 4  # of a process of tests, which runs on one thread but for the libraries it loads
PROCESSES = 4
RESERVE = 5.0  # seconds, for reading what there is before the part's own time is over

LINE = re.compile(
    r"^(tests/host/\S+?\.py::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", re.MULTILINE
)
KINDS = {"PASSED": PASSED, "XFAIL": PASSED, "SKIPPED": SKIPPED}


def run(setup: Setup) -> Iterator[Finding]:
    """Yield a finding for each test that ended."""
    files = [PACK / "tests" / "host" / name for name in SMALL] if setup.small else _ordered()
    count = max(1, min(PROCESSES, (os.cpu_count() or 1) // CORES_OF_ONE, len(files)))
    deadline = time.monotonic() + setup.seconds - RESERVE

    def tested(k: int) -> tuple[str, bool]:
        log = setup.folder / f"pytest_{k}.log"
        command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider"]
        command += [file.relative_to(PACK).as_posix() for file in files[k::count]]
        extra = {"ZMAGIC_DEVICE": setup.device, "COLUMNS": "400"}
        code = run_limited(command, log, deadline - time.monotonic(), extra)
        return log.read_text(encoding="utf-8", errors="replace"), code is None

    with ThreadPoolExecutor(count) as pool:
        runs = list(pool.map(tested, range(count)))
    for text, stopped in runs:
        yield from _findings(text)
        if stopped:
            yield Finding("the rest", SKIPPED, "time was over", {"stopped": True})
    if not any(LINE.search(text) for text, _ in runs):
        raise RuntimeError("no test ran:\n" + "\n".join(text[-2000:] for text, _ in runs))


def summary(findings: Sequence[Finding]) -> str:
    parts = [counted([f for f in findings if f.verdict != SKIPPED])]
    if any(f.values.get("stopped") for f in findings):
        parts.append("not all of them: time was over")
    return "; ".join(parts)


def _findings(text: str) -> Iterator[Finding]:
    reasons = dict(re.findall(r"^(?:FAILED|ERROR) (tests/host/\S+::.+?) - (.*)$", text, re.M))
    for name, outcome in LINE.findall(text):
        reason = reasons.get(name, outcome.lower())[:200]
        yield Finding(name, KINDS.get(outcome, FAILED), reason)


def _ordered() -> list[Path]:
    files = sorted((PACK / "tests" / "host").glob("test_*.py"))

    def place(file: Path) -> int:
        names = (k for k, name in enumerate(FIRST) if file.name.startswith(name))
        return next(names, len(FIRST))

    return sorted(files, key=place)
