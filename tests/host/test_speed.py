"""What guidance takes: steps by a clock that counts, real networks, and the command around them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zmagic.guidance.settings import PRESETS, preset
from zmagic.host.gradients import differentiable, normal
from zmagic.lab.evaluations import evaluations
from zmagic.lab.network_conditions import network_conditions
from zmagic.lab.photograph import photograph_conditions
from zmagic.lab.random_models import random_taesd
from zmagic.lab.sampling import Subject
from zmagic.lab.speed_report import BASELINE, rows_of, table
from zmagic.lab.step_times import Takes, Timer, guided_times, plain_times
from zmagic.lab.subjects import NETWORKS

from .architectures import DIFFUSION

pytestmark = pytest.mark.lab

PACK = Path(__file__).resolve().parents[2]
STEPS = 6
CONDITIONS = photograph_conditions(torch.rand(1, 3, 32, 32))


@pytest.fixture(scope="module")
def subject():
    with torch.inference_mode():
        specimen = DIFFUSION["sd15"]()
    taesd = random_taesd(4)
    vaes = {"vae": taesd, "taesd": taesd}
    return Subject(specimen.patcher, specimen.positive, specimen.negative, (1, 4, 4, 4), 1.0, vaes)


@pytest.fixture(scope="module")
def calls(subject):
    """A clock that tells how often the model was run."""
    seen: list[int] = []
    module = subject.model.model.diffusion_model
    handle = module.register_forward_hook(lambda *args: seen.append(1))
    yield lambda: float(len(seen))
    handle.remove()


def timed(subject, clock, settings, *, warm_up=False, repeats=1) -> tuple[Takes, Takes]:
    timer = Timer(warm_up, repeats, clock, STEPS)
    plain = plain_times(subject, timer)
    return plain, guided_times(subject, "taesd", settings, CONDITIONS, plain, timer)


@pytest.mark.parametrize(("warm_up", "repeats"), [(False, 1), (True, 2)])
@pytest.mark.parametrize("name", PRESETS)
def test_a_picture_takes_what_its_steps_run(subject, calls, name, warm_up, repeats):
    """Timed by runs of the model, the times are the counts of the engine."""
    plain, guided = timed(subject, calls, PRESETS[name], warm_up=warm_up, repeats=repeats)
    assert (plain.step, plain.picture) == (1.0, STEPS)
    found = evaluations(PRESETS[name], len(CONDITIONS), STEPS)
    assert guided.step == guided.denoiser_runs[0] == found.step["denoiser", "forward"]
    assert guided.picture == found.picture["denoiser", "forward"]
    assert guided.denoiser_runs[1] == found.step["denoiser", "backward"]
    assert guided.decoder_runs[1] == found.step["decoder", "backward"]
    assert not guided.warnings


def test_steps_that_differ_count_as_often_as_they_occur(subject, calls):
    """Time travel in a window, and every second step: five, none, five, none, one, none."""
    settings = preset("FreeDoM baseline", guide_every=2, time_travel=5, travel_end=0.5)
    plain, guided = timed(subject, calls, settings)
    assert guided.step == 5.0
    assert guided.picture == 5 + 1 + 5 + 1 + 1 + 1 + 1  # and the check of the slope


def test_every_decoder_of_the_host_can_be_timed(subject, calls):
    from zmagic.host.decoders import DECODERS

    timer = Timer(False, 1, calls, STEPS)
    plain = plain_times(subject, timer)
    for decoder in (name for name in DECODERS if name != "auto"):
        takes = guided_times(subject, decoder, PRESETS["fast"], CONDITIONS, plain, timer)
        assert takes.step == 1.0 and takes.decoder_runs[0] >= 1


@pytest.mark.slow
def test_conditions_take_the_networks_that_people_have_in_turn():
    conditions = network_conditions(len(NETWORKS) + 1)
    assert [c.name for c in conditions] == [*NETWORKS, next(iter(NETWORKS))]
    assert conditions[-1].networks == conditions[0].networks
    image = torch.rand(1, 3, 96, 96)
    for condition in conditions[:-1]:
        (network,) = condition.networks
        with differentiable(None, [network.module]):
            point = normal(image).requires_grad_()
            energy = condition.energy(point, None)
            (slope,) = torch.autograd.grad(energy.sum(), point)
        assert energy.isfinite().all() and slope.isfinite().all() and slope.any()
    assert conditions[0].energy.targets.directions.tolist() != (
        conditions[-1].energy.targets.directions.tolist()
    )


def test_ratios_are_to_plain_sampling_and_to_freedom_with_the_same_decoder():
    plain = Takes(2.0, 40.0)
    taken = {
        (BASELINE, "vae"): Takes(20.0, 400.0, (1, 1), (1, 1)),
        ("balanced", "vae"): Takes(30.0, 100.0, (1, 1), (2, 3)),
        (BASELINE, "taesd"): Takes(10.0, 200.0, (1, 1), (1, 1)),
        ("balanced", "taesd"): Takes(15.0, 100.0, (1, 1), (2, 3)),
    }
    rows = rows_of(plain, taken)
    assert [row["picture_per_freedom"] for row in rows] == [1.0, 0.25, 1.0, 0.5]
    assert [row["step_per_plain"] for row in rows] == [10.0, 15.0, 5.0, 7.5]
    assert list(table(rows))[3] == "| `balanced`, vae | 15.00 | 2.50 | 0.25 | 1 + 1 | 2 + 3 |"


@pytest.mark.slow
def test_the_command_times_a_model_of_the_published_size(tmp_path):
    """A small picture by the cheapest preset, decoder and network."""
    file = tmp_path / "speed.json"
    cheapest = min(PRESETS, key=lambda name: evaluations(PRESETS[name], 1).picture.total())
    arguments = ["--side", "64", "--presets", cheapest, "--decoders", "linear_rgb"]
    done = subprocess.run(
        [sys.executable, "-m", "lab.speed", *arguments, "--conditions", "1", "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=500,
        cwd=PACK,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(file.read_text("utf-8"))
    assert content["model"] == "SD1.5" and content["side"] == 64
    freedom, guided = content["guided"]
    assert (freedom["preset"], guided["preset"]) == (BASELINE, cheapest)
    assert freedom["denoiser_runs"] == [1, 1] and freedom["picture_per_freedom"] == 1.0
    assert freedom["step_per_plain"] > 2.0 and guided["picture_per_freedom"] > 0.0
    assert freedom["warnings"] == guided["warnings"] == []
    figure = f"{guided['picture_per_freedom']:.2f}"
    assert re.search(rf"\| `{re.escape(cheapest)}`, linear_rgb \|.*\| {figure} \|", done.stdout)
