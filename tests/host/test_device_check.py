"""The check of a device: its command as people run it, and the models it measures."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from zmagic.lab import random_models

pytestmark = pytest.mark.lab

PACK = Path(__file__).resolve().parents[2]


def started(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lab.device_check", *arguments]
    options = {"capture_output": True, "text": True, "timeout": 600, "cwd": PACK}
    return subprocess.run(command, env={**os.environ, **environment}, **options)


def checked(
    folder: Path, parts: str, seconds: float, code: int = 0, **environment: str
) -> tuple[list[str], dict]:
    """The lines and the JSON of the check on the CPU."""
    arguments = ["--device", "cpu", "--parts", parts, "--seconds", str(seconds)]
    arguments += ["--folder", str(folder / "left"), "--json", str(folder / "check.json")]
    done = started(*arguments, **environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout.splitlines(), json.loads((folder / "check.json").read_text("utf-8"))


@pytest.mark.slow
def test_a_line_for_each_part_and_everything_in_the_file(tmp_path):
    lines, report = checked(tmp_path, "gradients,step_sd15", 480.0)
    gradients, step = lines[1:3]
    assert re.match(
        r"gradients +passed +12 of 12 passed; nearest to its limit .* \[\d+ s\]$", gradients
    )
    assert re.match(r"step_sd15 +passed +plain .*; balanced, vae .* x\).* \[\d+ s\]$", step)
    assert report["machine"]["torch"] == torch.__version__ and report["machine"]["host"]
    assert "comfy-kitchen" in report["machine"]["kernels"] and report["size"] == "small"
    names = [finding["name"] for finding in report["parts"]["gradients"]["findings"]]
    assert {"sdxl float32", "flux bfloat16"} < set(names) and len(names) == 12
    for finding in report["parts"]["gradients"]["findings"]:
        assert 0.0 < finding["error"] < finding["allowed"]
    measured = {f["name"]: f for f in report["parts"]["step_sd15"]["findings"]}
    assert measured["plain"]["seconds"] > 0.0 and measured["plain"]["peak_gib"] == 0.0
    memory = [measured[f"balanced, {d}"]["peak_gib"] for d in ("linear_rgb", "taesd", "vae")]
    assert 0.0 < memory[0] < memory[1] < memory[2]
    assert measured["balanced, vae"]["totals"]["guided_evaluations"] > 0


@pytest.mark.slow
def test_a_part_whose_time_is_over_ends_and_the_next_one_has_its_turn(tmp_path):
    began = time.monotonic()
    lines, report = checked(tmp_path, "gradients,step_flux", 7.0)
    assert time.monotonic() - began < 60.0
    assert re.match(r"gradients +not finished .*stopped after its 7 s", lines[1])
    assert re.match(r"step_flux +not finished +the time for everything was over", lines[2])
    assert [part["verdict"] for part in report["parts"].values()] == ["not finished"] * 2


@pytest.mark.slow
def test_a_part_that_stops_with_an_error_is_a_failure_of_that_part(tmp_path):
    """The error comes from a ComfyUI of which files are missing."""
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy" / "samplers.py").touch()
    lines, report = checked(tmp_path, "gradients", 120.0, code=1, COMFYUI_PATH=str(tmp_path))
    reason = "ModuleNotFoundError: No module named 'comfy.options'"
    assert re.match(rf"gradients +failed +{reason}", lines[1])
    assert reason in report["parts"]["gradients"]["end"]


@pytest.mark.slow
def test_a_command_that_hangs_is_ended_with_what_it_started(tmp_path):
    """The function that runs every part ends it: a server that a part started must not stay."""
    late = f"import time; time.sleep(6); open({str(tmp_path / 'late')!r}, 'w')"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {late!r}])"
    code = (
        "import pathlib, sys\n"
        "from lab.device_check.processes import run_limited\n"
        f"log = pathlib.Path({str(tmp_path / 'log')!r})\n"
        f"print(run_limited([sys.executable, '-c', {parent!r}], log, 3.0))\n"
        "print(run_limited([sys.executable, '-c', 'raise SystemExit(3)'], log, 60.0))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACK)
    assert done.stdout.split() == ["None", "3"], done.stderr
    time.sleep(5.0)
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--parts", "everything"), "--parts must be some of demo, gradients, host_tests"),
        (("--device", "abacus"), "--device must be .*cpu on this machine, got abacus"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(arguments, message):
    done = started(*arguments)
    assert done.returncode == 2
    assert re.search(message, done.stderr) and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("architecture", "millions"),
    [
        (random_models.SD15, 859.5),
        (random_models.SDXL, 2567.5),
        (random_models.FLUX, 11901.4),
        (random_models.Z_IMAGE, 6154.9),
    ],
    ids=lambda value: getattr(value, "title", ""),
)
def test_the_models_have_the_published_sizes(architecture, millions):
    assert architecture.parameters() / 1e6 == pytest.approx(millions, abs=0.1)


def test_the_autoencoder_has_the_published_size():
    for channels, millions in ((4, 83.7), (16, 83.8)):
        vae = random_models.random_autoencoder(channels)
        count = sum(weight.numel() for weight in vae.first_stage_model.parameters())
        assert count / 1e6 == pytest.approx(millions, abs=0.1)
        assert vae.latent_channels == channels
