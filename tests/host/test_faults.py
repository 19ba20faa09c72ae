"""What breaks under a sweep on purpose, with few variants; people run it with more."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.server]

PACK = Path(__file__).resolve().parents[2]
VARIANTS = 6
LIMIT = 1800.0  # seconds, on a machine that is busy with other things
BROKEN = {
    "broken-hosts": [
        "a host was killed",
        "a host froze",
        "the sweep was killed and started again",
    ],
    "broken-cluster": [
        "a worker was killed",
        "a worker's host was killed",
        "a worker's host froze",
        "the scheduler was stopped, and another one started",
    ],
}


@pytest.mark.parametrize("part", BROKEN)
def test_nothing_is_lost_double_or_different(part, tmp_path):
    command = [sys.executable, "-m", "lab.faults", "--variants", str(VARIANTS), "--workers", "2"]
    command += ["--plain"]
    done = subprocess.run(
        [*command, "--parts", part, "--folder", str(tmp_path / "faults")],
        **{"cwd": PACK, "capture_output": True, "text": True, "timeout": LIMIT},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "faults" / "faults.json").read_text(encoding="utf-8"))
    found = report["parts"][part]
    assert set(BROKEN[part]) <= set(found["told"]) and found["variants"] == VARIANTS
    assert (found["lost"], found["double"], found["different"]) == (0, 0, 0)
