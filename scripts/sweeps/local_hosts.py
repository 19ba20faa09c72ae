"""Several ComfyUIs on this machine, each with folders of its own: for demos and tests."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from api_client import Server, running_server
from headless import available_device

__all__ = ["local_host", "local_hosts"]


@contextmanager
def local_hosts(count: int, folder: Path, **options) -> Iterator[list[Server]]:
    """Start ``count`` hosts, stop them at the end.

    They share the cores: each takes its part, unless OMP_NUM_THREADS says how many.

    Args:
        folder: host k writes to ``host-k`` in it, and prints to ``host-k.log``.
        options: see ``running_server``.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    with ExitStack() as started:
        folders = [folder / f"host-{k}" for k in range(count)]
        yield [started.enter_context(local_host(each, **options)) for each in folders]


def local_host(folder: Path, **options) -> AbstractContextManager[Server]:
    """A host whose pictures are in ``folder``; see ``running_server``."""
    options.setdefault("cpu", available_device() == "cpu")
    temporary = ["--temp-directory", str(folder.with_suffix(".temporary"))]
    return running_server(folder, folder.with_suffix(".log"), arguments=temporary, **options)
