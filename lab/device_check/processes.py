"""A part of the check in a process of its own, which may fail, hang or crash alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.headless import PACK

from .findings import FAILED, Finding, Setup, read, verdict_of
from .server import host_server

__all__ = ["UNFINISHED", "Outcome", "carried_out", "run_limited"]

UNFINISHED = "not finished"
LOG_LINES = 20


@dataclass(frozen=True)
class Outcome:
    """The outcome of a part of the check.

    Args:
        verdict: verdict of its findings, or UNFINISHED when its time was over.
        seconds: it took.
        findings: those it had by then.
        end: the last lines it printed, where it failed by itself.
    """

    verdict: str
    seconds: float
    findings: list[Finding]
    end: str = ""


def carried_out(part: str, setup: Setup) -> Outcome:
    """Run one part; whatever happens to it there is an outcome."""
    answers, log = setup.folder / f"{part}.jsonl", setup.folder / f"{part}.log"
    answers.unlink(missing_ok=True)
    command = [sys.executable, "-m", "lab.device_check", "--worker", part]
    command += ["--device", setup.device, "--size", setup.size]
    command += ["--folder", str(setup.folder), "--seconds", str(setup.seconds)]
    began = time.monotonic()
    code = run_limited(command, log, setup.seconds)
    seconds = time.monotonic() - began
    findings = read(answers)
    if code is None:
        failed = any(finding.verdict == FAILED for finding in findings)
        return Outcome(FAILED if failed else UNFINISHED, seconds, findings)
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        return Outcome(FAILED, seconds, findings, "\n".join(lines[-LOG_LINES:]))
    return Outcome(verdict_of(findings), seconds, findings)


def run_limited(
    command: Sequence[str], log: Path, seconds: float, extra: dict[str, str] | None = None
) -> int | None:
    """The exit code of a command, None if its time was over: it and its children are ended then.

    Args:
        command: run in the pack's folder.
        log: file that gets all that it prints.
        extra: environment variables besides those that the pack's scripts set.
    """
    environment = {**host_server.environment(), **(extra or {})}
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command,
            cwd=PACK,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _end(process: subprocess.Popen) -> None:
    """End the process and what it started, also on an interruption by the user."""
    if process.poll() is not None:
        return
    if os.name == "nt":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
