"""A sweep on a Dask cluster, whose workers have a ComfyUI each: a running one, or their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from api_client import Server
from dask_cluster import RESOURCE, connected
from distributed import Client, Future, Worker, WorkerPlugin, as_completed, get_worker

from .local_hosts import local_host
from .on_hosts import ANSWER_SECONDS, SweepStoppedError
from .runs import TROUBLES, Failed, Made, answers, cancel, made_by
from .variations import Variant

__all__ = ["made_on_cluster"]

# The variable with the address of a worker's ComfyUI, where one runs beside it.
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
        self.opened, self.server = ExitStack(), None
        # In a thread: a worker that says nothing for long counts as dead. What keeps the host from
        # starting is told by the first variant.
        with suppress(*TROUBLES):
            await asyncio.to_thread(self.open)

    async def teardown(self, worker: Worker) -> None:
        await asyncio.to_thread(self.opened.close)

    def open(self) -> Server:
        """The host that runs beside the worker, else one that is started.

        Raises:
            OSError: it did not start.
        """
        address = os.environ.get(RUNNING)
        if address is None:
            self.opened.close()
            try:
                address = self.opened.enter_context(local_host(self.folder)).address
            except RuntimeError as error:
                raise ConnectionError(str(error)) from error
        self.server = Server(address, ANSWER_SECONDS, ANSWER_SECONDS)
        return self.server

    def made(self, variant: Variant) -> Made:
        """Have the host make the variant; one that does not answer is started anew."""
        ready = self.server is not None and answers(self.server)
        server = self.server if ready else self.open()
        try:
            return made_by(server, variant, self.patience)
        except TROUBLES:
            cancel(server, variant)
            raise


def made_on_cluster(
    variants: Sequence[Variant],
    scheduler: str,
    patience: float,
    tries: int,
    tell: Callable[[str], None],
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
                tell(f"{made.host}: {made.reason}")
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
