"""What ships obeys: evaluators that never guide look at the pictures of graphs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.lab, pytest.mark.server, pytest.mark.slow]

PACK = Path(__file__).resolve().parents[2]
# Those whose first picture was another one than its prompt; the script itself takes all.
GRAPHS = ("text_and_identity_demo", "text_segmentation_identity_demo")


def test_the_pictures_of_the_graphs_show_what_their_prompts_say():
    """Graphs run as shipped in a process of their own: the evaluator needs single precision."""
    done = command("graphs", *GRAPHS)
    assert done.returncode == 0, done.stdout + done.stderr


def command(name: str, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", f"lab.{name}", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=PACK,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )


@pytest.mark.parametrize("obeys", [True, False])
def test_the_evaluators_of_the_demo_know_portraits_that_obey_from_others(obeys, tmp_path):
    """The person of the demo herself, once with the red hair that is asked for, before a man."""
    portraits = PACK / "demo_models"
    with Image.open(portraits / "woman.jpg") as portrait:
        pixels = np.asarray(portrait.convert("RGB"), np.float32)
    dark = pixels.max(2, keepdims=True) < 90.0  # her hair is black
    red = np.where(dark, pixels * (3.2, 1.0, 0.6), pixels) if obeys else pixels
    Image.fromarray(red.clip(0, 255).astype(np.uint8)).save(tmp_path / "Z-Magic_1.png")
    for run, portrait in (("prompt_alone", "man"), ("FreeDoM", "layout")):
        shutil.copy(portraits / f"{portrait}.jpg", tmp_path / f"{run}_1.png")
    done = command("demo_verdict", tmp_path)
    assert done.returncode == (not obeys), done.stdout + done.stderr
    found = json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"))
    assert found["agrees"] is obeys
    assert found["identity"]["Z-Magic"][0] > 0.3 > found["identity"]["prompt alone"][0]
    assert found["layout"]["FreeDoM"] == [pytest.approx(1.0)]
    (answers,) = found["prompt"]["Z-Magic"]
    assert (answers["hair color"] > 0.0) is obeys and answers["gender"] > 0.0
