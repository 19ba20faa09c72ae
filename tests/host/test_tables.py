"""Processes of the tables, started as the command starts them."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.slow]

PACK = Path(__file__).resolve().parents[2]


def test_workers_are_opened_from_the_pack_and_a_failing_one_ends_the_run():
    """The host takes the pack's folder from the path, from which the workers are imported."""
    code = (
        "from lab import workers\n"
        "from functools import partial\n"
        "for recipe in (list, partial(list, 1)):\n"
        "    with workers.open_pool(1, recipe) as pool:\n"
        "        pool.submit(abs, -1).result()\n"
        "        print('carried out')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=PACK
    )
    assert done.stdout.splitlines() == ["carried out"]
    assert "BrokenProcessPool" in done.stderr and done.returncode == 1
