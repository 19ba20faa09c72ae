"""Running hosts, of which one is killed, one frozen and one full, and the sweep is killed too."""

import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from api_client import Server
from sweeps.local_hosts import local_host, local_hosts

from .sweeping import Sweep, Work, descendant

__all__ = ["alone", "broken", "undisturbed"]

# Mounts a disk of $0 over the folder $1, for the command alone that follows.
WITH_DISK = 'mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@"'
OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")


def alone(folder: Path, work: Work) -> None:
    """All variants by one host."""
    undisturbed(folder, work, 1)


def undisturbed(folder: Path, work: Work, count: int) -> None:
    """All variants by hosts that nothing happens to."""
    with local_hosts(count, folder) as hosts:
        sweep = Sweep(folder / "sweep", work, _addresses(hosts))
        try:
            sweep.finished()
        finally:
            sweep.stop()


def broken(folder: Path, work: Work, count: int) -> list[str]:
    """All variants while things break, on ``count`` hosts and one with a small disk: what did."""
    told = []
    with ExitStack() as started:
        first, second, *others = started.enter_context(local_hosts(count, folder))
        last, full = _with_small_disk(started, folder / "full", work)
        sweep = Sweep(folder / "sweep", work, _addresses([first, second, *others, last]))
        started.callback(sweep.stop)

        sweep.wait_for(max(1, work.variants // 6))
        descendant(first.leash, "main.py").kill()
        told.append("a host was killed")

        sweep.wait_for(work.variants // 3)
        frozen = descendant(second.leash, "main.py")
        frozen.suspend()
        sweep.wait_until_told(f"{second.address}: ")
        told.append("a host froze")

        sweep.kill_and_go_on()
        told.append("the sweep was killed and started again")
        frozen.resume()
        sweep.finished()
        if full and "No space left" in (folder / "full.log").read_text(encoding="utf-8"):
            told.append("a disk was full")
    return told


def _addresses(hosts: Sequence[Server]) -> tuple[str, str]:
    return "--hosts", ",".join(host.address for host in hosts)


def _with_small_disk(started: ExitStack, folder: Path, work: Work) -> tuple[Server, bool]:
    """A host whose disk is soon full; where that needs rights that we lack, one with a large."""
    size = f"{work.picture_kib * (1 + work.variants // 12)}k"
    can = shutil.which("unshare") and not subprocess.run([*OWN_MOUNTS, "true"]).returncode
    prefix = [*OWN_MOUNTS, "sh", "-c", WITH_DISK, size, str(folder)] if can else []
    return started.enter_context(local_host(folder, prefix=prefix)), bool(can)
