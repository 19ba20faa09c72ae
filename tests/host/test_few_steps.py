"""The preset for models of few steps: half of the steps, several corrections behind each."""

import math

import pytest
import torch

from zmagic.guidance.settings import preset
from zmagic.host.hooks import HostSettings, attach

from . import architectures
from .test_compare import run
from .test_hooks import EPS, FLOW, conditions, guided

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


@pytest.mark.parametrize(("steps", "share"), [(4, 0.5), (8, 0.5), (14, 0.15)])
def test_candidates_are_guided_in_the_steps_that_the_whole_picture_is(
    specimens, steps, share, monkeypatch
):
    """Their quarter lies within the first half, and is guided as a whole; or less of it is."""
    from zmagic.nodes import candidate_runs

    early = []
    chosen = candidate_runs.chosen
    monkeypatch.setattr(
        candidate_runs,
        "chosen",
        lambda seeds, traces: early.extend(traces) or chosen(seeds, traces),
    )
    settings = HostSettings(preset("few steps", guided_share=share), "linear_rgb")
    options = {"steps": steps, "settings": settings, "candidates": 2}
    report = run(specimens[EPS], **options)[2]
    whole = math.ceil(share * steps)
    for trace in early:
        made = min(math.ceil(steps / 4), whole)
        assert [record.step for record in trace.steps] == list(range(made))
    assert [step["step"] for step in report["steps"]] == list(range(whole))


@pytest.mark.parametrize("at", [2, 4, 6])
@pytest.mark.parametrize("family", [EPS, FLOW])
def test_a_split_sampling_is_guided_in_the_steps_that_a_whole_one_is(specimens, family, at):
    """Over two KSampler (Advanced), the first of which hands on its noise."""
    import nodes

    specimen, traces = specimens[family], []
    settings = HostSettings(preset("few steps"), "linear_rgb")
    model = attach(specimen.patcher, conditions(), settings, on_finish=traces.append)
    latent = {"samples": torch.zeros(1, *specimen.latent.shape[1:])}
    with torch.inference_mode():
        node, prompts = nodes.KSamplerAdvanced(), (specimen.positive, specimen.negative)
        common = (3, 8, 1.0, "euler", "simple", *prompts)
        (first,) = node.sample(model, "enable", *common, latent, 0, at, "enable")
        node.sample(model, "disable", *common, first, at, 10_000, "disable")
    made = [[record.step for record in trace.steps] for trace in traces]
    assert made == [list(range(min(at, 4))), list(range(max(0, 4 - at)))]
    assert not any("nothing was guided" in said for trace in traces for said in trace.warnings)
    assert all(any("of the whole sampling" in note for note in trace.notes) for trace in traces)


def test_a_part_is_the_same_whoever_made_the_first_one_and_says_where_nothing_is_guided(specimens):
    """Its place comes from its noise alone: nothing is remembered of an earlier run."""
    import nodes

    specimen, traces = specimens[EPS], []
    settings = HostSettings(preset("few steps"), "linear_rgb")
    model = attach(specimen.patcher, conditions(), settings, on_finish=traces.append)
    latent = {"samples": torch.zeros(1, *specimen.latent.shape[1:])}

    def sampled(model, noise, latent, start, end, left):
        prompts = (specimen.positive, specimen.negative)
        common = (3, 8, 1.0, "euler", "simple", *prompts)
        with torch.inference_mode():
            (made,) = nodes.KSamplerAdvanced().sample(
                model, noise, *common, latent, start, end, left
            )
        return made

    first = sampled(specimen.patcher, "enable", latent, 0, 4, "enable")
    before = sampled(model, "disable", first, 4, 10_000, "disable")
    assert traces[0].steps == [] and "nothing was guided in it" in " ".join(traces[0].notes)
    sampled(model, "enable", latent, 0, 4, "enable")  # a first part of its own
    after = sampled(model, "disable", first, 4, 10_000, "disable")
    assert torch.equal(before["samples"], after["samples"])


def test_an_image_to_start_from_has_a_first_half_of_its_own(specimens):
    settings = HostSettings(preset("few steps"), "linear_rgb")
    trace = run(specimens[EPS], steps=4, settings=settings, denoise=0.5)[2]
    assert [step["step"] for step in trace["steps"]] == [0, 1] and not trace["notes"]
