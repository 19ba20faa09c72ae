"""A sweep on a Dask cluster, whose workers have a ComfyUI each: a running one, or their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from api_client import Server
from dask_cluster import RESOURCE, connected
from distributed import Client, Future, Worker, WorkerPlugin, as_completed, get_worker

from .local_hosts import local_host
from .on_hosts import ANSWER_SECONDS, SweepStoppedError
from .runs import TROUBLES, Failed, Made, answers, cancel, made_by
from .variations import Variant

__all__ = ["made_on_cluster"]

# Of a worker: the address of its ComfyUI, where one runs beside it.
RUNNING = "COMFYUI_URL"
PLUGIN = "zmagic-comfyui"


class HostOfWorker(WorkerPlugin):
    """The ComfyUI of a worker, started with it and ended with it.

    Args:
        patience: see ``made_by``.
    """

    name = PLUGIN

    def __init__(self, patience: float):
        self.patience = patience

    async def setup(self, worker: Worker) -> None:
        self.folder = Path(worker.local_directory) / "comfyui"  # which Dask removes
        # In a thread: a worker that says nothing for long counts as dead.
        await asyncio.to_thread(self.open)

    async def teardown(self, worker: Worker) -> None:
        await asyncio.to_thread(self.close)

    def open(self) -> None:
        """Find the running host, or start one."""
        self.opened = ExitStack()
        if address := os.environ.get(RUNNING):
            self.server, self.own = Server(address, ANSWER_SECONDS, ANSWER_SECONDS), False
            return
        started = self.opened.enter_context(local_host(self.folder))
        self.server, self.own = Server(started.address, ANSWER_SECONDS, ANSWER_SECONDS), True

    def close(self) -> None:
        """End the host that this worker has started."""
        self.opened.close()

    def made(self, variant: Variant) -> Made:
        """Have the host make the variant; one of this worker's that failed is started anew."""
        if self.own and not answers(self.server):
            self.close()
            self.open()
        try:
            return made_by(self.server, variant, self.patience)
        except TROUBLES:
            cancel(self.server, variant)
            raise


def made_on_cluster(
    variants: Sequence[Variant], scheduler: str, patience: float, tries: int
) -> Iterator[Made | Failed]:
    """Each variant once, in the order in which they end; see ``made_on_hosts``.

    Raises:
        ClusterError: there is no cluster.
        SweepStoppedError: the scheduler is gone.
    """
    with connected(scheduler) as client:
        client.register_plugin(HostOfWorker(patience))
        waiting = {_submitted(client, variant): (variant, []) for variant in variants}
        completed = as_completed(list(waiting))
        try:
            for future in completed:
                variant, tried = waiting.pop(future)
                if future.status in ("cancelled", "lost"):
                    raise SweepStoppedError("the scheduler is gone")
                made = _outcome(future, variant)
                if isinstance(made, Made) or len(tried) + 1 >= tries:
                    yield made
                    continue
                # Another worker, if there is one.
                tried = [*tried, made.host]
                known = client.scheduler_info(n_workers=-1)["workers"]
                others = [address for address in known if address not in tried]
                again = _submitted(client, variant, others)
                waiting[again] = (variant, tried)
                completed.add(again)
        finally:
            client.cancel(list(waiting))


def _submitted(client: Client, variant: Variant, workers: Sequence[str] = ()) -> Future:
    return client.submit(
        _made_here,
        variant,
        resources={RESOURCE: 1},
        workers=list(workers) or None,
        allow_other_workers=bool(workers),
        pure=False,
    )


def _made_here(variant: Variant) -> Made | Failed:
    """Run on a worker: what its host makes of the variant, or why it does not."""
    worker = get_worker()
    try:
        return worker.plugins[PLUGIN].made(variant)
    except TROUBLES as error:
        return Failed(variant, worker.address, str(error))


def _outcome(future: Future, variant: Variant) -> Made | Failed:
    if future.status == "error":  # Dask's own, or a worker that is set up otherwise than this
        return Failed(variant, "", str(future.exception()))
    return future.result()
