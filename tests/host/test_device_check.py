"""The check of a device: its command as people run it, and the models it measures."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from zmagic.benchmarks import random_models

PACK = Path(__file__).resolve().parents[2]


def checked(folder: Path, parts: str, seconds: float) -> tuple[list[str], dict]:
    """The lines and the JSON of the check on the CPU."""
    command = [sys.executable, "-m", "benchmarks.device_check", "--device", "cpu"]
    command += ["--parts", parts, "--seconds", str(seconds), "--folder", str(folder / "left")]
    command += ["--json", str(folder / "check.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=PACK)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines(), json.loads((folder / "check.json").read_text("utf-8"))


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


def test_a_part_whose_time_is_over_ends_and_the_next_one_has_its_turn(tmp_path):
    began = time.monotonic()
    lines, report = checked(tmp_path, "gradients,step_flux", 7.0)
    assert time.monotonic() - began < 60.0
    assert re.match(r"gradients +not finished .*stopped after its 7 s", lines[1])
    assert re.match(r"step_flux +not finished +the time for everything was over", lines[2])
    assert [part["verdict"] for part in report["parts"].values()] == ["not finished"] * 2


def test_an_unknown_part_is_refused_with_those_there_are():
    command = [sys.executable, "-m", "benchmarks.device_check", "--parts", "everything"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=PACK)
    assert done.returncode == 2
    assert "must be some of demo, gradients, host_tests" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("architecture", "millions"),
    [(random_models.SD15, 859.5), (random_models.SDXL, 2567.5), (random_models.FLUX, 11901.4)],
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
