"""Processes of the tables, started as the command starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

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


@pytest.fixture(scope="module")
def portraits(tmp_path_factory) -> Path:
    """The portraits that come with the demo, as held-out ones of three people."""
    folder = tmp_path_factory.mktemp("portraits")
    lines = []
    for number, name in enumerate(("woman", "man", "layout")):
        with Image.open(PACK / "demo_models" / f"{name}.jpg") as picture:
            picture.convert("RGB").resize((128, 128)).save(folder / f"{number}.jpg")
        Image.new("L", (128, 128)).save(folder / f"{number}_mask.png")
        lines.append(
            {
                "id": str(number),
                "identity": number,
                "split": "test",
                "picture": 0,
                "caption": f"a photo of a {name}",
                "landmarks": [[0.4, 0.45], [0.6, 0.45], [0.5, 0.55], [0.43, 0.65], [0.57, 0.65]],
            }
        )
    (folder / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def measured(portraits: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lab.tables", "--portraits", str(portraits), "--quick"]
    command += [
        "--tasks",
        "palette + style",
        "--methods",
        "Z-Magic default",
        "--folder",
        str(folder),
    ]
    command += ["--steps", "1", "--sets", "2", "--batch", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=PACK)


def rows(file: Path) -> dict[str, dict]:
    """What was measured by run, without its time."""
    lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {
        json.dumps(line["run"]): {k: v for k, v in line["measured"].items() if k != "seconds"}
        for line in lines
    }


def numbers(measured) -> list[float]:
    """All numbers of a measurement, from the first to the last."""
    if isinstance(measured, dict):
        measured = list(measured.values())
    if isinstance(measured, list):
        return [number for each in measured for number in numbers(each)]
    return [] if measured is None or isinstance(measured, str) else [float(measured)]


def test_shards_and_a_cluster_measure_what_one_process_does(portraits, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    early = measured(portraits, shared, "--shard", "0/2")
    assert early.returncode == 1 and "make it with --plan first" in early.stderr
    done = measured(portraits, shared, "--plan")
    assert done.returncode == 0 and (shared / "plan.json").is_file(), done.stderr
    done = measured(portraits, shared, "--shard", "1/2")
    assert done.returncode == 0 and not (shared / "tables.md").exists(), done.stderr
    first = rows(shared / "runs-1-of-2.jsonl")
    done = measured(portraits, shared, "--scheduler", "local:1")
    assert done.returncode == 0 and (shared / "tables.md").is_file(), done.stderr
    second = rows(shared / "runs.jsonl")
    done = measured(portraits, alone)
    assert done.returncode == 0, done.stderr
    assert first and second and not first.keys() & second.keys()
    together, expected = {**first, **second}, rows(alone / "runs.jsonl")
    assert together.keys() == expected.keys()
    for run, found in together.items():
        # Processes of other numbers of threads add up in another order.
        assert found.keys() == expected[run].keys()
        assert numbers(found) == pytest.approx(numbers(expected[run]), rel=1e-3, abs=1e-3), run
