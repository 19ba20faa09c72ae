"""What breaks under a sweep on purpose: the hosts of a short one.

People run `lab.faults` with more variants, and the part of a cluster, which takes minutes.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.server]

PACK = Path(__file__).resolve().parents[2]
VARIANTS = 12
LIMIT = 3600.0  # seconds, on a machine that is busy with other things
BROKEN = {
    "broken-hosts": {
        "a host was killed",
        "a host froze",
        "the sweep was killed and started again",
    },
}


def test_whatever_breaks_nothing_is_lost_double_or_different(tmp_path):
    """With pictures that take no time: what is tested is who makes them."""
    folder = tmp_path / "faults"
    command = [sys.executable, "-m", "lab.faults", "--plain", "--variants", str(VARIANTS)]
    command += ["--workers", "2", "--parts", *BROKEN, "--folder", str(folder)]
    done = subprocess.run(command, cwd=PACK, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((folder / "faults.json").read_text(encoding="utf-8"))["parts"]
    for part, broken in BROKEN.items():
        assert broken <= set(parts[part]["told"]) and parts[part]["variants"] == VARIANTS
        assert (parts[part]["lost"], parts[part]["double"], parts[part]["different"]) == (0, 0, 0)
