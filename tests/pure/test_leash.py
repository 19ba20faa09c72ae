"""A command on a leash ends with whoever holds it."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

LEASH = Path(__file__).resolve().parents[2] / "scripts" / "leash.py"
SECONDS = 60.0  # for what takes less than one
SLEEPER = "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"


@pytest.fixture
def leashed():
    """The leash and its child, which sleeps."""
    process = subprocess.Popen(
        [sys.executable, str(LEASH), sys.executable, "-c", SLEEPER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    child = psutil.Process(int(process.stdout.readline()))
    yield process, child
    for each in (child, psutil.Process(process.pid)) if process.poll() is None else (child,):
        if each.is_running():
            each.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def gone(child: psutil.Process) -> bool:
    started = time.monotonic()
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() - started > SECONDS:
            return False
        time.sleep(0.05)
    return True


def test_the_command_ends_when_the_leash_is_let_go(leashed):
    process, child = leashed
    process.stdin.close()
    assert process.wait(SECONDS) != 0 and gone(child)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows gives it no time: close its input")
def test_the_command_ends_when_the_leash_is_told_to(leashed):
    process, child = leashed
    process.terminate()
    assert process.wait(SECONDS) == 1 and gone(child)


def test_a_command_that_ends_by_itself_gives_its_status():
    command = [sys.executable, str(LEASH), sys.executable, "-c", "raise SystemExit(7)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.wait(SECONDS) == 7
