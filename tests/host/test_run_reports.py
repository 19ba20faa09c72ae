"""The report of a run: in the sampler, behind any other sampler, and as its schema says."""

import copy
import json
from pathlib import Path

import comfy.samplers
import comfy.sd
import folder_paths
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced
from PIL import Image

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies.reference_image import ReferenceImage
from zmagic.guidance.run_figure import HEIGHT, WIDTH
from zmagic.host.run import KEY
from zmagic.nodes.report_node import ZMagicReport
from zmagic.nodes.sampler_nodes import ZMagicApply, ZMagicGuider, ZMagicSampler

from .. import json_schema
from . import architectures
from .derivatives import one_thread
from .test_hooks import CHEAP, EPS, conditions, sample
from .test_notices import in_graph, prompt_server, sent

__all__ = ["prompt_server"]  # a fixture

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "report.schema.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def specimen():
    with torch.inference_mode():
        return architectures.DIFFUSION[EPS]()


@pytest.fixture(scope="module")
def applied(specimen):
    """A guided model of Apply Z-Magic, and two latents that KSampler made with it, by seed."""
    with torch.inference_mode():
        (model,) = ZMagicApply.execute(specimen.patcher, conditions(), CHEAP).args
    return model, {seed: {"samples": sample(specimen, model, seed=seed)} for seed in (3, 4)}


def sampler_output(specimen, node=ZMagicSampler, conds=None, model=None, **options):
    """What Z-Magic Sampler returns to ComfyUI."""
    chosen = {"seed": 3, "steps": 3, "cfg": 3.0, "denoise": 1.0} | options
    with torch.inference_mode(), one_thread():
        return node.execute(
            model or specimen.patcher,
            specimen.positive,
            specimen.negative,
            {"samples": torch.zeros(2, *specimen.latent.shape[1:])},
            conditions() if conds is None else conds,
            sampler_name="euler",
            scheduler="normal",
            settings=CHEAP,
            **chosen,
        )


def preview(output) -> Image.Image:
    (saved,) = output.ui["images"]
    assert saved["type"] == "temp"
    return Image.open(Path(folder_paths.get_temp_directory()) / saved["filename"])


def test_the_sampler_shows_the_figure_and_says_what_happened(specimen, prompt_server):
    first, second = conditions()
    conds = (first, Condition("silent", second.energy, weight=0.0))
    output = sampler_output(specimen, in_graph(ZMagicSampler, "7"), conds)
    figure, report = output.args[1], json.loads(output.args[2])
    assert figure.shape == (1, HEIGHT, WIDTH, 3)
    with preview(output) as shown:
        assert shown.size == (WIDTH, HEIGHT)
    (warning,) = report["warnings"]
    assert report["words"].endswith("; 1 warning")
    text = f"{warning}\n\n{report['words']}"
    assert output.ui["text"] == (text,)
    assert sent(prompt_server)[-1][1] == text


def test_the_numbers_of_the_sentence_are_those_of_the_run(specimen):
    report = json.loads(sampler_output(specimen).args[2])
    colors, likeness = report["conditions"]
    first = report["steps"][0]
    for k, facts in enumerate((colors, likeness)):
        assert facts["start"] == pytest.approx(sum(first["energies"][k]) / 2, rel=1e-5)
        assert facts["end"] == pytest.approx(sum(report["final"][facts["name"]]) / 2, rel=1e-5)
        assert facts["goal"] == 0.0
        way = 1.0 - facts["end"] / facts["start"]
        assert facts["towards_goal"] == pytest.approx(way, rel=1e-4)
        assert f"{facts['name']} {round(100 * way):+d} %" in report["words"]


def test_seed_model_and_versions(specimen):
    report = json.loads(sampler_output(specimen, seed=2**64 - 1).args[2])
    about = report["about"]
    assert (about["seed"], about["sampler"], about["steps"]) == (2**64 - 1, "euler", 3)
    assert about["model"] == {"file": None, "kind": type(specimen.patcher.model).__name__}
    assert about["versions"]["torch"] == torch.__version__
    assert about["versions"]["zmagic"] == "0.1.0"


def test_the_file_of_a_model_that_a_loader_of_the_host_made(specimen):
    loaded = copy.copy(specimen)
    loaded.patcher = specimen.patcher.clone()
    made_by = (comfy.sd.load_diffusion_model, ("/private/models/unet/flux.safetensors", {}))
    loaded.patcher.cached_patcher_init = made_by
    report = sampler_output(loaded, steps=1).args[2]
    assert json.loads(report)["about"]["model"]["file"] == "flux.safetensors"
    assert "private" not in report


REPORTS = {
    "guided": {},
    "nothing sampled": {"denoise": 0.0},
    "not a number": {"cfg": float("nan")},
    "one condition": {"conds": conditions()[:1]},
}


@pytest.mark.parametrize("case", REPORTS)
def test_reports_are_as_their_schema_says(specimen, case):
    report = json.loads(sampler_output(specimen, **REPORTS[case]).args[2])
    assert json_schema.faults(report, SCHEMA) == []


def test_the_schema_finds_faults(specimen):
    report = json.loads(sampler_output(specimen, steps=1).args[2])
    for change in (
        {"format": 2},
        {"words": None},
        {"more": 1},
        {"final": {"colors": ["x"]}},
        {"steps": [{**report["steps"][0], "sigma": -1}]},
    ):
        assert len(json_schema.faults({**report, **change}, SCHEMA)) == 1, change
    del report["about"]
    assert json_schema.faults(report, SCHEMA) == ["$: no about"]


def read(guided, latent, node=ZMagicReport):
    output = node.execute(guided, latent)
    figure, report, passed = output.args
    assert passed is latent and figure.shape == (1, HEIGHT, WIDTH, 3)
    return output, json.loads(report)


def test_behind_ksampler_the_latent_tells_which_run_it_is_of(applied, prompt_server):
    model, latents = applied
    for seed, latent in latents.items():
        output, report = read(model, latent, in_graph(ZMagicReport, "9"))
        assert report["about"]["seed"] == seed and len(report["steps"]) == 3
        assert json_schema.faults(report, SCHEMA) == []
        assert sent(prompt_server) == [("9", report["words"], "client")]
        with preview(output) as shown:
            assert shown.size == (WIDTH, HEIGHT)


def test_of_a_picture_or_a_latent_of_another_model_it_reads_the_last_run(applied, prompt_server):
    model, latents = applied
    assert read(model, torch.zeros(1, 8, 8, 3))[1]["about"]["seed"] == 4
    foreign = {"samples": latents[3]["samples"] + 1.0}
    output, report = read(model, foreign, in_graph(ZMagicReport, "9"))
    assert report["about"]["seed"] == 4
    (doubt,) = report["notes"]
    assert "No run of this model made this latent" in doubt
    assert sent(prompt_server)[0][1].startswith(doubt)
    assert read(model, latents[4])[1]["notes"] == []  # the run itself is as it was


def test_patches_behind_the_guidance_do_not_hide_it(applied):
    model, latents = applied
    assert read(model.clone(), latents[3])[1]["about"]["seed"] == 3


def test_conditions_that_another_node_adds_behind_it_do_not_hide_it(specimen):
    with torch.inference_mode():
        (model,) = ZMagicApply.execute(specimen.patcher, conditions()[:1], CHEAP).args
        latent, _, expected, _ = sampler_output(specimen, conds=conditions()[1:], model=model).args
        report = ZMagicReport.execute(model, latent).args[1]
    assert json.loads(report) == json.loads(expected)
    assert [facts["name"] for facts in json.loads(report)["conditions"]] == ["colors", "likeness"]


def test_behind_a_guider(specimen):
    with torch.inference_mode(), one_thread():
        (guider,) = ZMagicGuider.execute(
            specimen.patcher, specimen.positive, conditions(), 3.0, specimen.negative, CHEAP
        ).args
        sampled = SamplerCustomAdvanced.execute(
            Noise_RandomNoise(5),
            guider,
            comfy.samplers.sampler_object("euler"),
            torch.tensor([5.0, 1.0, 0.0]),
            {"samples": torch.zeros(1, 4, 8, 8)},
        ).args
    for latent in sampled:  # output and denoised_output
        report = read(guider, latent)[1]
        assert report["about"]["seed"] == 5 and report["notes"] == []


def test_what_has_no_report_is_told_what_to_do(specimen):
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    with pytest.raises(ValueError, match=r"^Z-Magic Report: connect the model of Apply Z-Magic"):
        ZMagicReport.execute(specimen.patcher, latent)
    with torch.inference_mode():
        (model,) = ZMagicApply.execute(specimen.patcher, conditions(), CHEAP).args
    with pytest.raises(ValueError, match=r"^Z-Magic Report: sample once more"):
        ZMagicReport.execute(model, latent)


def test_a_preview_that_cannot_be_written_loses_no_picture(specimen, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setattr(folder_paths, "temp_directory", str(blocked))
    output = sampler_output(specimen, steps=1)
    assert torch.isfinite(output.args[0]["samples"]).all()
    assert set(output.ui) == {"text"}


def test_a_server_that_fails_loses_no_picture(specimen, prompt_server, monkeypatch):
    def fails(*args):
        raise RuntimeError("Event loop is closed")

    monkeypatch.setattr(prompt_server, "send_progress_text", fails)
    output = sampler_output(specimen, in_graph(ZMagicSampler, "7"), compare=True)
    assert torch.equal(output.args[0]["samples"], sampler_output(specimen).args[0]["samples"])
    assert json.loads(output.args[2])["warnings"] == []


class OfAnyKind(ReferenceImage):
    """An energy of another pack, whose goal is no number."""

    goal = torch.zeros(2)


def test_a_report_that_cannot_be_written_loses_no_picture(specimen):
    reference = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    conds = (Condition("any", OfAnyKind(reference)),)
    latent, _, report, _ = sampler_output(specimen, conds=conds).args
    assert torch.isfinite(latent["samples"]).all()
    report = json.loads(report)
    assert json_schema.faults(report, SCHEMA) == []
    assert report["warnings"][0].startswith("the report could not be written: ")


def test_remembered_runs_hold_no_weights_and_are_few(specimen, applied):
    with torch.inference_mode():
        (model,) = ZMagicApply.execute(specimen.patcher, conditions(), CHEAP).args
    for seed in range(20):
        sample(specimen, model, seed=seed, steps=1, batch=1)
    runs = model.get_attachment(KEY).runs
    assert len(runs._runs) == 16
    assert all(marks.numel() < 600 for marks, _ in runs._runs)
