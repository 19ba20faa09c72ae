"""A Dask cluster whose workers have a ComfyUI each; worker, host and scheduler are ended."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
from api_client import free_port
from dask_cluster import RESOURCE

from . import PACK
from .sweeping import LIMIT, LOOK_SECONDS, Sweep, Work, descendant, leashed

__all__ = ["broken", "undisturbed"]

DASK = (sys.executable, "-m", "dask")


def undisturbed(folder: Path, work: Work, workers: int) -> None:
    """All variants by a cluster on this machine."""
    sweep = Sweep(folder / "sweep", work, ("--scheduler", f"local:{workers}"))
    try:
        sweep.finished()
    finally:
        sweep.stop()


def broken(folder: Path, work: Work, workers: int) -> list[str]:
    """All variants while things break: what did, in the order of it.

    Raises:
        RuntimeError: the sweep did not say that the scheduler was gone.
    """
    address = f"tcp://127.0.0.1:{free_port()}"
    told = []
    with ExitStack() as opened:  # the scheduler ends last
        members = _cluster(opened, folder / "first", address, workers)
        sweep = Sweep(folder / "sweep", work, ("--scheduler", address))

        sweep.wait_for(max(1, work.variants // 5))
        _awaited(members[0], "spawn_main").kill()
        told.append("a worker was killed")

        sweep.wait_for(2 * work.variants // 5)
        _awaited(members[1 % workers], "main.py").kill()
        told.append("a worker's host was killed")

        sweep.wait_for(3 * work.variants // 5)
        frozen = _awaited(members[2 % workers], "main.py")
        frozen.suspend()
        told.append("a worker's host froze")

        sweep.wait_for(4 * work.variants // 5)
    sweep.process.wait(LIMIT)
    if "the scheduler is gone" not in sweep.told:
        raise RuntimeError(f"the scheduler was stopped, and the sweep told:\n{sweep.end}")
    told.append("the scheduler was stopped, and another one started")
    with ExitStack() as opened:
        _cluster(opened, folder / "second", address, 1)
        opened.callback(sweep.stop)
        sweep.go_on()
        sweep.finished()
    return told


def _cluster(opened: ExitStack, folder: Path, address: str, workers: int) -> list[subprocess.Popen]:
    """A scheduler, and workers, which end when ``opened`` is left; the workers."""
    port = address.rpartition(":")[2]
    listening = ("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    _open(opened, folder / "scheduler.log", *listening)
    worker = ("worker", address, "--nthreads", 1, "--resources", f"{RESOURCE}=1")
    worker += ("--no-dashboard", "--memory-limit", 0, "--local-directory", folder)
    return [_open(opened, folder / f"worker-{k}.log", *worker) for k in range(workers)]


def _open(opened: ExitStack, log: Path, *command: object) -> subprocess.Popen:
    searched = os.pathsep.join((str(PACK), str(PACK / "scripts")))
    process = leashed([*DASK, *command], log, PYTHONPATH=searched)

    def end() -> None:
        process.stdin.close()
        process.wait()

    opened.callback(end)
    return process


def _awaited(member: subprocess.Popen, word: str) -> psutil.Process:
    """The worker's process of that name, which may have to be started again first."""
    started = time.monotonic()
    while (found := descendant(member, word)) is None:
        if time.monotonic() - started > LIMIT:
            raise RuntimeError(f"a worker has no process '{word}'")
        time.sleep(LOOK_SECONDS)
    return found
