"""What ships obeys: an evaluator measures the first picture of each graph with a text."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.server, pytest.mark.slow]

PACK = Path(__file__).resolve().parents[2]
# Those whose first picture was another one than its prompt; the script itself takes all.
GRAPHS = ("text_and_identity_demo", "text_segmentation_identity_demo")


def test_the_pictures_of_the_graphs_show_what_their_prompts_say():
    """Graphs run as shipped in a process of their own: the evaluator needs single precision."""
    done = subprocess.run(
        [sys.executable, "-m", "lab.graphs", *GRAPHS],
        capture_output=True,
        text=True,
        cwd=PACK,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
