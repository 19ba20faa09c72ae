"""Which ComfyUI this pack needs. Imports nothing of the host, so that an old one can be told."""

import re
import sys

__all__ = ["OLDEST_HOST", "refuse_old_host", "running_version"]

# The oldest version on which 'make test-hosts' passes; pyproject.toml tells the registry the same.
OLDEST_HOST = "0.24.0"


def running_version() -> str | None:
    """The version of the ComfyUI that runs this process, or None where it states none."""
    return getattr(sys.modules.get("comfyui_version"), "__version__", None)


def refuse_old_host(version: str | None) -> None:
    """Raise RuntimeError if ``version`` is older than ``OLDEST_HOST``; None passes."""
    if version is None or _numbers(version) >= _numbers(OLDEST_HOST):
        return
    raise RuntimeError(
        f"Update ComfyUI: Z-Magic needs ComfyUI {OLDEST_HOST} or newer, and this is {version}"
    )


def _numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version such as '0.24.1' or '0.30.0-nightly'."""
    numbers = [int(number) for number in re.findall(r"\d+", version)[:3]]
    return tuple(numbers + [0] * (3 - len(numbers)))
