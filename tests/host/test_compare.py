"""The unguided picture beside the guided one: what it changes, what it is, and what it costs."""

import json

import comfy.model_management
import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker

from zmagic.guidance.conditions import Condition
from zmagic.host.hooks import attach
from zmagic.host.run import KEY
from zmagic.nodes.sampler_nodes import ZMagicSampler

from . import architectures
from .derivatives import one_thread
from .test_hooks import CHEAP, EPS, conditions, sample
from .test_notices import in_graph, prompt_server, sent

__all__ = ["prompt_server"]  # a fixture

STEPS = 3


@pytest.fixture(scope="module")
def specimen():
    with torch.inference_mode():
        return architectures.DIFFUSION[EPS]()


def run(specimen, conds=None, node=ZMagicSampler, model=None, sampler="euler", **options):
    """Latent, figure, report and unguided latent of Z-Magic Sampler."""
    chosen = {"seed": 3, "steps": STEPS, "cfg": 3.0, "denoise": 1.0, "settings": CHEAP} | options
    with torch.inference_mode(), one_thread():
        latent, figure, report, unguided = node.execute(
            model or specimen.patcher,
            specimen.positive,
            specimen.negative,
            {"samples": torch.zeros(2, *specimen.latent.shape[1:])},
            conditions() if conds is None else conds,
            sampler_name=sampler,
            scheduler="normal",
            **chosen,
        ).args
    return latent["samples"], figure, json.loads(report), unguided


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m_sde"])
def test_the_guided_picture_is_the_same_and_the_other_is_that_of_ksampler(specimen, sampler):
    guided, _, report, nothing = run(specimen, sampler=sampler)
    beside, _, compared, unguided = run(specimen, sampler=sampler, compare=True)
    assert torch.equal(beside, guided)
    assert torch.equal(unguided["samples"], sample(specimen, specimen.patcher, sampler=sampler))
    assert isinstance(nothing, ExecutionBlocker) and nothing.message is None
    assert compared["final"] == report["final"] and report["unguided"] == {}


def test_the_report_holds_one_against_the_other(specimen, prompt_server):
    conds = conditions()
    _, figure, report, unguided = run(specimen, conds, in_graph(ZMagicSampler, "7"), compare=True)
    model = attach(specimen.patcher, conds, CHEAP)
    decode, scaled = model.get_attachment(KEY).decoder.decode, model.model.process_latent_in
    image = decode(model.model.process_latent_out, scaled(unguided["samples"]))
    for condition in conds:
        energies = condition.energy(image).tolist()
        assert report["unguided"][condition.name] == pytest.approx(energies, rel=1e-4)
    for facts in report["conditions"]:
        percent = round(100 * (1 - facts["end"] / facts["unguided"]))
        assert (
            f"{facts['name']} {abs(percent)} % {'lower' if percent >= 0 else 'higher'}"
            in (report["words"].split("against unguided: ")[1])
        )
    assert not torch.equal(figure, run(specimen)[1])
    texts = [text for _, text, _ in sent(prompt_server)]
    assert "Sampling without guidance, to compare." in texts
    assert texts[-1] == report["words"]


def test_it_costs_one_plain_sampling_and_one_look_at_its_end(specimen):
    calls = {"model": 0, "energy": 0}
    model = specimen.patcher.clone()

    def counted(apply_model, args):
        calls["model"] += 1
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(counted)
    (first, _) = conditions()

    def energy(image, region=None):
        calls["energy"] += 1
        return first.energy(image, region)

    def cost(**options):
        calls.update(model=0, energy=0)
        run(specimen, (Condition("one", energy),), model=model, **options)
        return dict(calls)

    alone, beside = cost(), cost(compare=True)
    assert beside["model"] - alone["model"] == STEPS
    assert beside["energy"] - alone["energy"] == 1


def test_a_model_that_is_guided_already_is_compared_with_none_of_it(specimen):
    first, second = conditions()
    model = attach(specimen.patcher, (first,), CHEAP)
    unguided = run(specimen, (second,), model=model, compare=True)[3]
    assert torch.equal(unguided["samples"], sample(specimen, specimen.patcher))


class Ends:
    """An energy that does something at the second finished image."""

    ends = 0

    def __init__(self, inner, then):
        self.inner, self.then = inner, then

    def begin_run(self):
        return self

    def begin_step(self, step):
        self.ends += step is None

    def __call__(self, image, region=None):
        if self.ends > 1:
            self.then()
        return self.inner(image, region)


def test_if_it_fails_the_guided_picture_is_kept_and_a_warning_says_so(specimen, monkeypatch):
    import nodes

    sampling, times = nodes.common_ksampler, []

    def fails(*args, **kwargs):
        times.append(1)
        if len(times) > 1:
            raise RuntimeError("not enough of something")
        return sampling(*args, **kwargs)

    monkeypatch.setattr(nodes, "common_ksampler", fails)
    guided, _, report, unguided = run(specimen, compare=True)
    assert torch.isfinite(guided).all() and isinstance(unguided, ExecutionBlocker)
    (warning,) = report["warnings"]
    assert "the unguided picture could not be made: not enough of something" in warning


def test_it_can_be_cancelled(specimen, prompt_server):
    first, _ = conditions()
    then = comfy.model_management.interrupt_current_processing
    conds = (Condition("first", Ends(first.energy, then)), Condition("second", first.energy))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(specimen, conds, in_graph(ZMagicSampler, "7"), compare=True)
    assert sent(prompt_server)[-1][1] == "Stopped while sampling without guidance."


def test_nothing_to_sample_leaves_nothing_to_compare(specimen):
    unguided = run(specimen, compare=True, denoise=0.0)[3]
    assert isinstance(unguided, ExecutionBlocker)
