"""The host's real server, as the parts of the check start it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.headless import PACK

from .findings import Setup

__all__ = ["api_client", "demo", "host_server", "started"]

# These scripts import each other as they do when one of them is run.
sys.path.insert(0, str(PACK / "scripts"))
try:
    import api_client
    import demo
    import host_server
finally:
    sys.path.pop(0)


def started(setup: Setup, folder: Path, arguments: Sequence[str] = ()):
    """A running server whose pictures and log are in ``folder``; ``arguments`` are the host's."""
    folder.mkdir(parents=True, exist_ok=True)
    return api_client.running_server(
        folder,
        folder / "server.log",
        cpu=setup.cpu,
        python=sys.executable,
        arguments=arguments,
    )
