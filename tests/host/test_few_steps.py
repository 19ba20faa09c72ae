"""The preset for models of few steps: half of the steps, several corrections behind each."""

import pytest
import torch

from zmagic.guidance.settings import preset
from zmagic.host.hooks import HostSettings

from . import architectures
from .test_hooks import EPS, FLOW, guided

STRENGTH = 0.6


@pytest.fixture(scope="module")
def specimens():
    with torch.inference_mode():
        return {name: architectures.DIFFUSION[name]() for name in (EPS, FLOW)}


@pytest.mark.parametrize("steps", [4, 8])
@pytest.mark.parametrize("family", [EPS, FLOW])
def test_energies_fall_more_than_by_fast_in_as_many_steps(specimens, family, steps):
    def final(name: str, strength: float = STRENGTH):
        settings = HostSettings(preset(name, strength=strength), "linear_rgb")
        trace = guided(specimens[family], settings, steps=steps, scheduler="simple")[1]
        return trace, {name: sum(values) for name, values in trace.final.items()}

    plain, fast = final("fast", 0.0)[1], final("fast")[1]
    trace, few = final("few steps")
    assert [record.step for record in trace.steps] == list(range(steps // 2))
    assert all(record.forwards["denoiser"] == 1 for record in trace.steps)
    assert not any("denoiser" in record.backwards for record in trace.steps)
    for name in plain:
        assert few[name] < fast[name] < plain[name], name


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_first_half_is_counted_in_whole_steps_whatever_the_scheduler(specimens, steps):
    settings = HostSettings(preset("few steps"), "linear_rgb")
    for scheduler in ("simple", "karras"):
        trace = guided(specimens[EPS], settings, steps=steps, scheduler=scheduler)[1]
        assert [record.step for record in trace.steps] == list(range((steps + 1) // 2))


def test_a_share_of_nothing_is_said(specimens):
    settings = HostSettings(preset("few steps", guided_share=0.0), "linear_rgb")
    trace = guided(specimens[EPS], settings, steps=2)[1]
    assert not trace.steps
    assert any("guided_share" in warning for warning in trace.warnings)
