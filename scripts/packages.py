"""The Python environment ``.venv``: made once, filled by one call of pip, reused afterwards."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from headless import PACK
from host_archive import requirements_of

VENV = PACK / ".venv"
STATE = PACK / ".host"

# One version for every host, so that a difference between two hosts is never one of PyTorch.
TORCH = ["torch==2.14.1", "torchvision==0.29.1"]
# The host imports torchaudio. This is its last release; it runs with newer PyTorch, but asks for
# its own, hence without dependencies.
TORCHAUDIO = "torchaudio==2.11.0"

SECONDS_BETWEEN_SIGNS = 20.0  # of life, while a command takes long
LINES_SHOWN = 8  # of a failed command's output; pip's reason is in the last ones


class SetupError(Exception):
    """A reason to stop, in one sentence for the person at the terminal."""


def say(text: str) -> None:
    """Tell the person at the terminal what is going on."""
    print(f"[z-magic] {text}", flush=True)


def venv_python() -> Path:
    """The interpreter of ``.venv``."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run_quietly(command: list, purpose: str) -> None:
    """Run ``command`` with its output in a file, whose latest line is told now and then.

    Raises SetupError with the end of the output when the command fails.
    """
    STATE.mkdir(exist_ok=True)
    log = STATE / "setup.log"
    parts = [str(part) for part in command]
    started, code = time.monotonic(), None
    with log.open("wb") as out, subprocess.Popen(parts, stdout=out, stderr=out) as process:
        while code is None:
            try:
                code = process.wait(SECONDS_BETWEEN_SIGNS)
            except subprocess.TimeoutExpired:
                latest = (_end_of(log, 1) or ["nothing printed yet"])[0].strip()
                say(f"{purpose}, {time.monotonic() - started:.0f} s: {latest[:80]}")
    if code:
        end = [line[:300] for line in _end_of(log, LINES_SHOWN)]
        raise SetupError("\n".join([*end, f"{purpose} failed; all of its output is in {log}"]))


def _end_of(log: Path, lines: int) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]


def pip(*arguments: object, purpose: str) -> None:
    """Run pip of ``.venv``."""
    run_quietly([venv_python(), "-m", "pip", "--disable-pip-version-check", *arguments], purpose)


def make_venv() -> None:
    """Create ``.venv`` unless it is there and has pip."""
    probe = [venv_python(), "-c", "import pip"]
    if venv_python().exists() and subprocess.run(probe, capture_output=True).returncode == 0:
        return
    say("making .venv")
    create = [sys.executable, "-m", "venv", "--clear", VENV]
    if find_spec("ensurepip"):
        return run_quietly(create, "making .venv")
    # Some distributions leave ensurepip out of Python; their own pip can put one into .venv.
    run_quietly([*create, "--without-pip"], "making .venv")
    outer_pip = [sys.executable, "-m", "pip", "--python", venv_python(), "install", "pip"]
    run_quietly(outer_pip, "putting pip into .venv")


def read_requirements(name: str) -> list[str]:
    """The requirements in one of this repository's lists, without comments."""
    lines = (PACK / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def install(host: Path) -> None:
    """Install PyTorch, the host's requirements, the pack's and the tools, unless they are there.

    One call of pip resolves them together, so that none can move another away from its pin.
    """
    wanted = [
        *TORCH,
        *requirements_of(host),
        *read_requirements("requirements.txt"),
        *read_requirements("requirements-dev.txt"),
        *read_requirements("requirements-lab.txt"),
    ]
    key = hashlib.sha256("\n".join([*wanted, TORCHAUDIO]).encode()).hexdigest()
    stamp = VENV / "installed.sha256"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == key:
        return
    say("installing PyTorch and all requirements; the first time takes some minutes")
    stamp.unlink(missing_ok=True)
    listed = STATE / "requirements.txt"
    listed.write_text("\n".join(wanted), encoding="utf-8")
    pip("install", "-r", listed, purpose="installing the requirements")
    pip("install", "--no-deps", TORCHAUDIO, purpose="installing torchaudio")
    stamp.write_text(key, encoding="utf-8")
