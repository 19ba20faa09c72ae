"""Optimize Noise in the host: what it finds, what it keeps, and what it leaves as it was."""

import json
from pathlib import Path

import comfy.model_management
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import (
    BasicScheduler,
    Guider_Basic,
    KSamplerSelect,
    SamplerCustomAdvanced,
)

from zmagic.guidance.conditions import Condition
from zmagic.guidance.noise_search import NoiseSearch, best_of_each
from zmagic.guidance.settings import preset
from zmagic.host.decoders import choose_decoder
from zmagic.host.hooks import HostSettings, attach, unguided
from zmagic.host.memory import need_of
from zmagic.host.run import KEY
from zmagic.nodes.optimize_noise_node import ZMagicOptimizeNoise

from ..json_schema import faults
from . import architectures
from .derivatives import one_thread
from .test_hooks import EPS, FLOW, conditions, sample
from .test_notices import in_graph, prompt_server, sent

__all__ = ["prompt_server"]  # a fixture

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "report.schema.json"
LINEAR = HostSettings(preset("balanced"), "linear_rgb")
SEED, STEPS, EVALUATIONS = 3, 2, 5


@pytest.fixture(scope="module")
def specimens():
    with torch.inference_mode():
        return {name: architectures.DIFFUSION[name]() for name in (EPS, FLOW)}


def run(specimen, conds=None, model=None, node=ZMagicOptimizeNoise, latent=None, **options):
    """Samples, noise and report."""
    chosen = {"seed": SEED, "steps": STEPS, "cfg": 1.0, "denoise": 1.0, "rate": 0.1}
    chosen |= {"sampler_name": "euler", "scheduler": "simple", "settings": LINEAR}
    chosen |= {"evaluations": EVALUATIONS} | options
    shape = (2, *specimen.latent.shape[1:])
    with torch.inference_mode(), one_thread():
        latent, noise, _, report = node.execute(
            model or specimen.patcher,
            specimen.positive,
            specimen.negative,
            {"samples": torch.zeros(shape)} if latent is None else latent,
            conditions() if conds is None else conds,
            **chosen,
        ).args
    return latent["samples"], noise, json.loads(report)


@pytest.fixture(scope="module")
def found(specimens):
    return {family: run(specimens[family]) for family in (EPS, FLOW)}


def plain(specimen, seed: int) -> dict[str, list[float]]:
    """The energies of the pictures of a seed."""
    traces = []
    model = unguided(attach(specimen.patcher, conditions(), LINEAR), traces.append)
    sample(specimen, model, seed=seed, steps=STEPS, cfg=1.0, scheduler="simple")
    return traces[0].final


@pytest.mark.parametrize("family", [EPS, FLOW])
def test_it_is_better_than_the_best_of_as_many_seeds(specimens, found, family):
    report = found[family][2]
    seeds = [plain(specimens[family], seed) for seed in range(SEED, SEED + EVALUATIONS)]
    # The first evaluation is the picture of the seed.
    first = dict(zip(report["steps"][0]["conditions"], report["steps"][0]["energies"], strict=True))
    for name, values in first.items():
        assert values == pytest.approx(seeds[0][name], rel=1e-3)
    table = [[each[condition.name] for condition in conditions()] for each in seeds]
    best = best_of_each(table, conditions())
    for j, condition in enumerate(conditions()):
        chosen = sum(table[number][j][b] for b, number in enumerate(best))
        assert sum(report["final"][condition.name]) < chosen, condition.name


@pytest.mark.parametrize("family", [EPS, FLOW])
def test_the_noise_makes_the_same_picture_in_stock_nodes(specimens, found, family):
    specimen, (samples, noise, _) = specimens[family], found[family]
    latent = {"samples": torch.zeros_like(samples)}
    with torch.inference_mode(), one_thread():
        guider = Guider_Basic(specimen.patcher)
        guider.set_conds(specimen.positive)
        sampler = KSamplerSelect.execute("euler").args[0]
        sigmas = BasicScheduler.execute(specimen.patcher, "simple", STEPS, 1.0).args[0]
        stock = SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).args[0]
    assert torch.allclose(stock["samples"], samples, atol=1e-5)
    assert noise.seed == SEED
    with pytest.raises(ValueError, match="connect the latent that Optimize Noise had"):
        noise.generate_noise({"samples": torch.zeros(1, 4, 4, 4)})


def test_the_report_keeps_its_schema_and_says_what_it_took(found):
    report = found[EPS][2]
    assert faults(report, json.loads(SCHEMA.read_text(encoding="utf-8"))) == []
    assert report["noise"]["evaluations"] == len(report["steps"]) == EVALUATIONS
    forwards = [record["forwards"]["denoiser"] for record in report["steps"]]
    assert forwards == [STEPS] * EVALUATIONS
    assert report["cost"]["total"] > 2 * (EVALUATIONS - 1)  # forward and backward of each
    assert f"the best of {EVALUATIONS} noises is number" in report["words"]


def test_the_node_says_where_it_is(specimens, prompt_server):
    run(specimens[EPS], node=in_graph(ZMagicOptimizeNoise, "7"), evaluations=2)
    texts = [text for _, text, _ in sent(prompt_server)]
    assert any(text.startswith("noise 2/2: colors ") for text in texts)
    assert "the best of 2 noises" in texts[-1]


def test_inputs_stay_as_they_are(specimens):
    specimen = specimens[EPS]
    latent = {"samples": torch.full((2, 4, 8, 8), 0.1)}
    before = latent["samples"].clone()
    options = str(specimen.patcher.model_options)
    run(specimen, latent=latent, evaluations=2, denoise=0.7, steps=4)
    assert torch.equal(latent["samples"], before)
    assert str(specimen.patcher.model_options) == options
    assert specimen.patcher.get_attachment(KEY) is None


class Stopping:
    """An energy during whose second look something happens."""

    def __init__(self, error: BaseException):
        self.error, self.looks = error, 0
        self.energy = conditions()[0].energy

    def __call__(self, image, region=None):
        self.looks += 1
        if self.looks == 2:
            raise self.error
        return self.energy(image, region)


def test_an_interruption_leaves_the_host_as_it_was(specimens):
    specimen = specimens[EPS]
    stop = comfy.model_management.InterruptProcessingException()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(specimen, [Condition("stops", Stopping(stop))])
    assert not comfy.model_management.in_training
    assert not any(p.requires_grad for p in specimen.patcher.model.parameters())
    _, _, report = run(specimen, evaluations=2)
    assert report["noise"]["evaluations"] == 2


def test_memory_that_ends_keeps_the_best_so_far(specimens):
    short = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    settings = HostSettings(preset("balanced"), "linear_rgb", "small")
    _, _, report = run(specimens[EPS], [Condition("stops", Stopping(short))], settings=settings)
    assert report["noise"] == {"evaluations": 1, "best": [0, 0], "rate": 0.1, "white": True}
    assert any("ended after 1 of" in warning for warning in report["warnings"])


def test_small_memory_finds_the_same(specimens, found):
    settings = HostSettings(preset("balanced"), "linear_rgb", "small")
    samples = run(specimens[FLOW], settings=settings)[0]
    assert torch.allclose(samples, found[FLOW][0], atol=1e-3)


def test_the_host_is_asked_for_the_memory_of_all_steps(specimens, monkeypatch):
    specimen, asked = specimens[EPS], []
    load = comfy.model_management.load_models_gpu

    def watched(models, memory_required=0, **options):
        asked.append(options["minimum_memory_required"])
        return load(models, memory_required, **options)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", watched)
    settings = HostSettings(preset("balanced"), "linear_rgb", "fast")
    for steps in (1, 4):
        run(specimen, steps=steps, evaluations=1, settings=settings)
    decoder = choose_decoder("linear_rgb", None, specimen.patcher.model.latent_format)
    model, shape = specimen.patcher.model, (2, *specimen.latent.shape[1:])
    one, four = (need_of(model, decoder, shape, steps).fast for steps in (1, 4))
    # Rounded up to whole batches, which the host reckons with.
    assert asked[1] - asked[0] == pytest.approx(four - one, rel=0.2)


SAMPLERS = ("euler", "lcm", "dpmpp_2m", "res_multistep", "heun", "ddim", "uni_pc")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_gradient_comes_through_the_samplers_of_such_models(specimens, sampler):
    calls = []
    model = specimens[FLOW].patcher.clone()

    def counted(apply_model, args):
        calls.append(1)
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(counted)
    _, _, report = run(specimens[FLOW], model=model, evaluations=2, sampler_name=sampler)
    first, second = (torch.tensor(step["energies"]).sum() for step in report["steps"])
    assert second < first
    each = len(calls) // 3  # two pictures are looked at, and the best is made
    assert [step["forwards"]["denoiser"] for step in report["steps"]] == [each] * 2
    assert report["steps"][0]["backwards"]["denoiser"] == each
    assert report["totals"]["plain_denoiser_forwards"] == each


def test_nothing_to_sample_is_said(specimens):
    with pytest.raises(ValueError, match="set 'denoise' above 0"):
        run(specimens[EPS], denoise=0.0)


def test_conditions_of_a_model_that_is_guided_join(specimens):
    first, second = conditions()
    model = attach(specimens[EPS].patcher, (first,), LINEAR)
    report = run(specimens[EPS], (second,), model=model, evaluations=2)[2]
    assert list(report["final"]) == ["colors", "likeness"]
    assert NoiseSearch().evaluations == 24
