"""Several seeds at Z-Magic Sampler: the picture is that of the best one alone, and all are told."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker

from zmagic.guidance.candidates import early_steps, seeds_of
from zmagic.guidance.conditions import Condition
from zmagic.nodes.sampler_nodes import ZMagicSampler

from ..json_schema import faults
from . import architectures
from .test_compare import run
from .test_hooks import CHEAP, EPS, conditions, guided, sample
from .test_notices import in_graph, prompt_server, sent

__all__ = ["prompt_server"]  # a fixture

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "report.schema.json"
STEPS, COUNT, SEED = 4, 3, 3


@pytest.fixture(scope="module")
def specimen():
    with torch.inference_mode():
        return architectures.DIFFUSION[EPS]()


@pytest.fixture(scope="module")
def best(specimen):
    return run(specimen, candidates=COUNT, steps=STEPS, compare=True)


def test_one_candidate_is_the_seed_alone_to_the_bit(specimen):
    first, _, report, _ = run(specimen, steps=STEPS)
    again, _, other, _ = run(specimen, steps=STEPS, candidates=1)
    assert torch.equal(first, again)
    assert report["candidates"] == other["candidates"] == [] and report["final"] == other["final"]


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m_sde"])
def test_the_picture_is_that_of_the_best_seed_alone(specimen, sampler):
    latent, _, report, nothing = run(specimen, candidates=COUNT, steps=STEPS, sampler=sampler)
    seed = report["about"]["seed"]
    alone, _, single, _ = run(specimen, seed=seed, steps=STEPS, sampler=sampler)
    assert torch.equal(latent, alone) and report["final"] == single["final"]
    assert isinstance(nothing, ExecutionBlocker)
    assert [each["seed"] for each in report["candidates"]] == seeds_of(SEED, COUNT)
    assert min(report["candidates"], key=lambda each: each["score"])["seed"] == seed
    assert f"the best of {COUNT} candidates has seed {seed}" in report["words"]


def test_the_same_seed_chooses_the_same_and_the_report_keeps_its_schema(specimen, best):
    latent, _, report, _ = best
    again, _, other, _ = run(specimen, candidates=COUNT, steps=STEPS)
    assert torch.equal(latent, again)
    for mine, others in zip(report["candidates"], other["candidates"], strict=True):
        assert {**mine, "seconds": 0} == {**others, "seconds": 0}
    assert faults(report, json.loads(SCHEMA.read_text(encoding="utf-8"))) == []


def test_energies_are_those_of_the_first_steps_and_unguided_is_of_the_best_seed(specimen, best):
    _, _, report, unguided = best
    seed = report["about"]["seed"]
    plain = sample(specimen, specimen.patcher, seed=seed, steps=STEPS)
    assert torch.equal(unguided["samples"], plain)
    found = next(each for each in report["candidates"] if each["seed"] == seed)
    part = {"last_step": early_steps(STEPS), "force_full_denoise": True}
    _, trace = guided(specimen, seed=seed, steps=STEPS, **part)
    assert found["energies"] == trace.final and set(trace.final) == {"colors", "likeness"}


def test_it_costs_the_first_steps_of_each_and_says_so(specimen):
    calls = {"model": 0}
    model = specimen.patcher.clone()

    def counted(apply_model, args):
        calls["model"] += 1
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(counted)

    def cost(**options):
        calls.update(model=0)
        report = run(specimen, model=model, steps=STEPS, **options)[2]
        return calls["model"], report["cost"]

    (alone, plain), (several, all_of_them) = cost(), cost(candidates=COUNT)
    each = alone // STEPS  # guided evaluations and the check of the slope take the same everywhere
    assert several > alone and several - alone >= COUNT * each * early_steps(STEPS)
    assert all_of_them["total"] == pytest.approx(plain["total"] + all_of_them["candidates"])
    share = COUNT * early_steps(STEPS) / STEPS
    assert all_of_them["candidates"] == pytest.approx(share * plain["total"], rel=0.5)


def test_the_node_says_which_candidate_it_is_at(specimen, prompt_server):
    run(specimen, node=in_graph(ZMagicSampler, "7"), candidates=2, steps=STEPS)
    texts = [text for _, text, _ in sent(prompt_server)]
    assert any(text.startswith("candidate 2/2, step 1/1: ") for text in texts)
    assert "the best of 2 candidates has seed" in texts[-1]


def test_conditions_without_weight_choose_nothing(specimen):
    (first, _) = conditions()
    off = Condition("off", first.energy, weight=0.0)
    report = run(specimen, (off,), candidates=2, steps=STEPS)[2]
    assert report["about"]["seed"] == SEED
    assert any("could not be compared" in warning for warning in report["warnings"])


@pytest.mark.parametrize("where", ["settings", "conditions"])
def test_a_guidance_that_begins_after_the_comparison_is_said(
    specimen, prompt_server, caplog, where
):
    """The node, the log and the report; a guidance that begins in time says nothing."""
    late, early = 0.6, 0.0
    said = []
    for start in (late, early):
        conds, settings = conditions(), CHEAP
        if where == "conditions":
            conds = tuple(replace(each, start=start) for each in conds)
        else:
            settings = replace(CHEAP, guidance=replace(CHEAP.guidance, guide_start=start))
        node = in_graph(ZMagicSampler, "7")
        report = run(specimen, conds, node, candidates=2, steps=STEPS, settings=settings)[2]
        said.append([w for w in report["warnings"] if "nothing guided them" in w])
    (warning,), none = said
    assert none == [] and warning.startswith("begin the guidance within the first quarter")
    assert any(text.startswith(warning) for _, text, _ in sent(prompt_server))
    logged = [record.getMessage() for record in caplog.records]
    assert logged.count(f"Z-Magic: {warning}") == 1


def test_nothing_to_sample_has_no_candidates(specimen):
    report = run(specimen, candidates=2, steps=STEPS, denoise=0.0)[2]
    assert report["candidates"] == [] and "denoise is 0" in report["warnings"][0]
