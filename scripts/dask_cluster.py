"""A Dask cluster: one that runs somewhere, or one of processes on this machine.

Dask is optional (``requirements-lab.txt``); nothing is imported from it before it is asked for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["RESOURCE", "ClusterError", "checked_scheduler", "connected", "local_workers"]

# What a worker has one of; Dask's documentation calls it so too. A job takes one.
RESOURCE = "GPU"
CONNECT_SECONDS = 10.0
# Workers may still be starting.
WORKER_SECONDS = 300.0
LOOK_SECONDS = 1.0
SCHEDULER = re.compile(r"local:([1-9]\d*)|(tcp|tls|ws|wss|ucx)://.+")


class ClusterError(RuntimeError):
    """There is no cluster to work on; the message says what to do."""


def checked_scheduler(text: str) -> str:
    """``text``, an address such as ``tcp://host:8786`` or ``local:N``.

    Raises:
        ValueError: it is neither.
    """
    if SCHEDULER.fullmatch(text):
        return text
    raise ValueError(f"expected tcp://HOST:8786 or local:N with a number of workers, got '{text}'")


def local_workers(scheduler: str) -> int | None:
    """The number of workers on this machine, None for a scheduler that runs somewhere."""
    found = SCHEDULER.fullmatch(scheduler)
    return int(found[1]) if found and found[1] else None


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """A client of the cluster; one on this machine ends with it.

    Raises:
        ClusterError: Dask is not installed, nobody answers, or no worker has the resource.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ClusterError(
            "--scheduler needs Dask: pip install -r requirements-lab.txt, with this Python"
        ) from error
    local = local_workers(scheduler)
    if local is not None:
        one_each = {"threads_per_worker": 1, "resources": {RESOURCE: 1}, "memory_limit": 0}
        with (
            LocalCluster(n_workers=local, dashboard_address=None, **one_each) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except OSError as error:
        raise ClusterError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    with client:
        _wait_for_a_worker(client, scheduler)
        yield client


def _wait_for_a_worker(client: Client, scheduler: str) -> None:
    """Return when there is one that has the resource: jobs for others would wait in silence."""
    started = time.monotonic()
    while True:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if any(worker["resources"].get(RESOURCE) for worker in workers):
            return
        if time.monotonic() - started > WORKER_SECONDS:
            raise ClusterError(
                f"start workers with --resources {RESOURCE}=1 --nthreads 1: the scheduler at "
                f"{scheduler} has {len(workers)} workers, and none with that resource"
            )
        time.sleep(LOOK_SECONDS)
