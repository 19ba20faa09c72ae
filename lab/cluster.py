"""The workers of a Dask cluster carry out the jobs of the tables, as processes on one machine do.

Each opens the networks once, when it starts; what they measure comes back to the one process that
writes the store.
"""

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager

from .workers import PACK, Recipe, open_worker, threads_of

# isort: split
from distributed import WorkerPlugin
from distributed.scheduler import KilledWorker

from scripts.dask_cluster import RESOURCE, ClusterError, connected, local_workers

__all__ = ["open_cluster"]

# How often a job that failed is tried again; a worker that dies is no failure of its job at once.
RETRIES = 2


class OpenedNetworks(WorkerPlugin):
    """What a worker opens before its first job, and again where it was started anew.

    Args:
        threads: of PyTorch; None leaves them as they are.
    """

    name = "zmagic-tables"

    def __init__(self, recipe: Recipe, threads: int | None):
        self.recipe, self.threads = recipe, threads

    async def setup(self, worker: object) -> None:
        # In a thread: a worker that says nothing for long counts as dead.
        await asyncio.to_thread(open_worker, self.recipe, self.threads)


@contextmanager
def open_cluster(scheduler: str, recipe: Recipe) -> Iterator[Executor]:
    """The workers of a cluster, see ``dask_cluster.connected``.

    Raises:
        SystemExit: there is no cluster, or it was lost; what is measured is in the store.
    """
    if PACK not in sys.path:  # see ``workers.open_pool``
        sys.path.append(PACK)
    local = local_workers(scheduler)
    threads = threads_of(local) if local else None
    try:
        with connected(scheduler) as client:
            client.register_plugin(OpenedNetworks(recipe, threads))
            with client.get_executor(resources={RESOURCE: 1}, retries=RETRIES) as pool:
                yield pool
    except ClusterError as error:
        sys.exit(str(error))
    except CancelledError:
        sys.exit("The scheduler is gone; the same command goes on when there is one again.")
    except KilledWorker as error:
        sys.exit(f"Several workers died of one job, so memory may be short: {error}")
