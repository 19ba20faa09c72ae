"""The command of the tables, on two portraits and conditions that need no network."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zmagic.host.demo_model import FACE_POINTS, MAN_FILE, WOMAN_FILE

pytestmark = [pytest.mark.lab, pytest.mark.slow]

PACK = Path(__file__).resolve().parents[2]
STEPS = (1, 2)


@pytest.fixture(scope="module")
def portraits(tmp_path_factory) -> Path:
    """A folder as the portraits' command writes it, of two people of the split of the tests."""
    folder = tmp_path_factory.mktemp("portraits")
    labels = []
    for identity, file in ((9, WOMAN_FILE), (19, MAN_FILE)):
        shutil.copy(file, folder / f"{identity}.jpg")
        with Image.open(file) as picture:
            empty = np.zeros((picture.height, picture.width), np.uint8)
        Image.fromarray(empty).save(folder / f"{identity}_mask.png")
        # The labels begin with the right eye, which is at the left of the picture.
        points = [list(point) for point in FACE_POINTS[file]]
        labels.append(
            {
                "id": str(identity),
                "identity": identity,
                "picture": 0,
                "caption": "a portrait",
                "landmarks": points,
            }
        )
    lines = "".join(json.dumps(label) + "\n" for label in labels)
    (folder / "labels.jsonl").write_text(lines, encoding="utf-8")
    return folder


def test_the_tables_of_two_numbers_of_steps(portraits, tmp_path):
    """Best of N takes about the operations of the default; all figures and the plot are there."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "lab.tables", "--portraits", str(portraits), "--quick"),
            *("--tasks", "palette + sketch", "--sets", "1", "--batch", "1"),
            *("--steps", *map(str, STEPS), "--folder", str(tmp_path)),
            *("--methods", "best of N", "DSG", "Z-Magic default"),
        ],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=PACK,
    )
    assert done.returncode == 0, done.stderr
    for steps in STEPS:
        folder = tmp_path / f"{steps} steps"
        content = json.loads((folder / "tables.json").read_text("utf-8"))
        rows = {row["method"]: row for row in content["palette + sketch"]["rows"]}
        assert rows.keys() == {"unguided", "FreeDoM", "DSG", "best of N", "Z-Magic default"}
        assert rows["unguided"]["operations"] == 1.0
        count = content["plan"]["candidates"]["palette + sketch"]["best of N"]
        each = rows["best of N"]["operations"] / count
        assert abs(rows["best of N"]["operations"] - rows["Z-Magic default"]["operations"]) <= each
        assert rows["best of N"]["forwards"] == count * steps and count > 1
        assert (folder / "ranks.png").is_file()
        assert f"best of N (N = {count})" in (folder / "tables.md").read_text("utf-8")


PROMPTED = """
import json
from lab.world import DemoWorld, photograph_conditions
from zmagic.guidance.settings import GuidanceSettings
from zmagic.host.demo_model import load_photograph

world = DemoWorld()
conditions = photograph_conditions(load_photograph().movedim(-1, 1))
red, black = "a photo of a person with red hair", "a photo of a person with black hair"
run = {"steps": 2, "batch": 2}
pictures = [
    world.sample(conditions, GuidanceSettings(strength=0.0), 1, prompts=prompts, **run)[0]
    for prompts in ([red, black], [red, red], None)
]
spread = pictures[0].std()
print(json.dumps([[float((a - pictures[0][i]).std() / spread) for i, a in enumerate(each)]
                  for each in pictures[1:]]))
"""


def test_each_picture_follows_its_own_prompt():
    done = subprocess.run(
        [sys.executable, "-c", PROMPTED], capture_output=True, text=True, timeout=300, cwd=PACK
    )
    assert done.returncode == 0, done.stderr
    both_red, untold = json.loads(done.stdout.splitlines()[-1])
    assert both_red[0] < 1e-3 < 0.02 < both_red[1]
    assert min(untold) > 0.02
