"""Processes of the tables, started as the command starts them."""

import subprocess
import sys
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "recipe, answer",
    [("list", "carried out"), ("partial(list, 1)", "BrokenProcessPool")],
)
def test_workers_are_opened_from_the_pack_and_a_failing_one_ends_the_run(recipe, answer):
    """The host takes the pack's folder from the path, from which the workers are imported."""
    code = (
        "from lab import workers\n"
        "from functools import partial\n"
        f"with workers.open_pool(2, {recipe}) as pool:\n"
        "    pool.submit(abs, -1).result()\n"
        "print('carried out')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=180, cwd=PACK
    )
    assert answer in done.stdout + done.stderr
