"""A Chromium for the tests of the graphs: the one that is there, else Debian's where root asks."""

from __future__ import annotations

import os
import shutil

from packages import SetupError, run_quietly, say

__all__ = ["NO_CHROMIUM", "find_chromium", "have_chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NO_CHROMIUM = (
    "no Chromium on this machine: install it (Debian: apt-get install chromium), or name its "
    "executable by CHROMIUM, and the graphs are tested in the frontend too"
)


def find_chromium() -> str | None:
    """The executable named by CHROMIUM, else one on the path, else None."""
    found = (shutil.which(name) for name in NAMES)
    return os.environ.get("CHROMIUM") or next(filter(None, found), None)


def have_chromium() -> bool:
    """Return whether there is a Chromium; install it where that needs no password."""
    if find_chromium():
        return True
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        say("installing Chromium by apt-get, since this is root: the graphs are tested in it")
        try:
            run_quietly(["apt-get", "update"], "asking for Debian's packages")
            options = ["--yes", "--no-install-recommends"]
            run_quietly(["apt-get", "install", *options, "chromium"], "installing Chromium")
        except SetupError as error:
            say(str(error))
    if find_chromium():
        return True
    say(f"tests/browser is skipped: {NO_CHROMIUM}")
    return False
