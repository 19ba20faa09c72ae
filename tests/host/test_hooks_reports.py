"""What a run says of itself: what had no effect and why; and no report costs a picture."""

import json

import pytest
import torch
from nodes import KSamplerAdvanced

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import ColorPalette, ReferenceImage
from zmagic.guidance.settings import preset
from zmagic.host.hooks import HostSettings, attach
from zmagic.nodes import run_reports, sampler_nodes
from zmagic.nodes.sampler_nodes import ZMagicSampler

from . import architectures
from .derivatives import one_thread
from .test_hooks import CHEAP, EPS, conditions, sample

OFF = HostSettings(preset("balanced", strength=0.0), "linear_rgb")


@pytest.fixture(scope="module")
def specimen():
    with torch.inference_mode():
        return architectures.DIFFUSION[EPS]()


def traced(specimen, conds, settings=CHEAP, model=None, **options):
    traces = []
    model = attach(model or specimen.patcher, conds, settings, on_finish=traces.append)
    return sample(specimen, model, **options), traces[0]


def sampler_node(specimen, conds, settings=CHEAP, latent=None, **options):
    """Z-Magic Sampler as a prompt executes it: the latent, the plots, the report."""
    values = {"seed": 3, "steps": 3, "cfg": 3.0, "denoise": 1.0} | options
    model = values.pop("model", specimen.patcher)
    with torch.inference_mode(), one_thread():
        latent, curves, report, _ = ZMagicSampler.execute(
            model,
            specimen.positive,
            specimen.negative,
            latent or {"samples": torch.zeros(2, *specimen.latent.shape[1:])},
            conds,
            sampler_name="euler",
            scheduler="normal",
            settings=settings,
            **values,
        ).args
    return latent["samples"], curves, json.loads(report)


BLACK = torch.zeros(1, 64, 64)  # the MASK of Load Image for a picture without transparency
SILENT = {
    "black mask": ({"region": BLACK}, "its region is empty"),
    "negative mask": ({"region": BLACK - 1.0}, "its region is empty"),
    "weight 0": ({"weight": 0.0}, "its weight is 0"),
    "no width": ({"start": 0.4, "end": 0.4}, "its window from 0.4 to 0.4 has no width"),
    "between two steps": ({"start": 0.3, "end": 0.31}, "holds no guided step of this run"),
}


@pytest.mark.parametrize("case", SILENT)
def test_a_condition_that_is_active_in_no_step_is_said_with_the_reason(specimen, case, caplog):
    options, reason = SILENT[case]
    first, second = conditions()
    silent = Condition("silent", second.energy, **options)
    trace = traced(specimen, (first, silent))[1]
    (warning,) = trace.warnings
    assert warning.startswith("silent guided in no step: ") and reason in warning
    assert [r for r in caplog.records if warning in r.getMessage()]
    assert warning in json.loads(trace.to_json())["warnings"]


def test_a_window_outside_the_part_that_is_sampled_is_said(specimen):
    first, second = conditions()
    early = Condition("early", second.energy, end=0.2)
    (warning,) = traced(specimen, (first, early), denoise=0.4)[1].warnings
    assert warning.startswith("early guided in no step: ")


def test_steps_that_are_not_guided_do_not_count_for_a_window(specimen):
    settings = HostSettings(preset("fast", guide_every=2), "linear_rgb")
    first, second = conditions()
    late = Condition("late", second.energy, start=0.95)
    (warning,) = traced(specimen, (first, late), settings, steps=4)[1].warnings
    assert warning.startswith("late guided in no step: ")


def test_a_mask_that_is_empty_for_one_picture_is_said(specimen):
    first, second = conditions()
    region = torch.ones(2, 64, 64)
    region[1] = 0.0
    partly = Condition("partly", second.energy, region=region)
    warnings = traced(specimen, (first, partly))[1].warnings
    assert warnings == ["partly did not guide picture 2: its region is empty there"]


def test_conditions_that_work_are_not_complained_of(specimen):
    assert not traced(specimen, conditions())[1].warnings


def test_without_strength_the_report_says_that_nothing_was_guided(specimen):
    trace = traced(specimen, conditions(region=BLACK), OFF)[1]
    assert not trace.warnings
    assert any("strength is 0" in note for note in trace.notes)


def test_a_gradient_of_exactly_0_is_called_that(specimen):
    first, _ = conditions()

    def satisfied(image, region=None):
        return (image - 1e6).clamp_min(0.0).flatten(1).sum(1)

    def constant(image, region=None):
        return torch.ones(len(image)).to(image)

    conds = (first, Condition("satisfied", satisfied), Condition("constant", constant))
    warnings = traced(specimen, conds)[1].warnings
    assert len(warnings) == 2
    for name, warning in zip(("satisfied", "constant"), warnings, strict=True):
        assert warning.startswith(f"{name} has no effect, its gradient is exactly 0")
        assert "finite" not in warning


def test_a_condition_that_begins_to_move_later_had_an_effect(specimen):
    class Late:
        """Has no gradient at its first look."""

        looks = 0

        def __call__(self, image, region=None):
            self.looks += 1
            return image.flatten(1).mean(1) * float(self.looks > 1)

    first, _ = conditions()
    trace = traced(specimen, (first, Condition("late", Late())), steps=4)[1]
    assert not trace.warnings
    assert "late was satisfied in some steps: its gradient was exactly 0" in trace.notes


def test_a_picture_in_which_a_condition_never_moves_is_named(specimen):
    def half(image, region=None):
        return image.flatten(1).mean(1) * torch.tensor([1.0, 0.0], device=image.device)

    first, _ = conditions()
    (warning,) = traced(specimen, (first, Condition("half", half)))[1].warnings
    assert warning.startswith("half has no effect at picture 2, its gradient is exactly 0")


def test_a_travel_window_without_a_step_is_said(specimen):
    settings = HostSettings(preset("quality", travel_start=0.3, travel_end=0.301), "linear_rgb")
    (warning,) = traced(specimen, conditions(), settings)[1].warnings
    assert warning.startswith("time_travel has no effect: its window from 0.3 to 0.301")


def test_a_gradient_that_is_not_finite_in_one_picture_is_said_with_its_number(specimen):
    first, _ = conditions()

    def broken(image, region=None):
        return image.flatten(1).mean(1) * torch.tensor([1.0, torch.nan]).to(image)

    (warning,) = traced(specimen, (first, Condition("broken", broken)))[1].warnings
    assert "broken has no finite gradient" in warning and "picture 2" in warning


def test_a_noisy_latent_has_no_final_energies(specimen):
    """KSampler (Advanced) that hands its noise on."""
    traces = []
    model = attach(specimen.patcher, conditions(), CHEAP, on_finish=traces.append)
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    common = (3, 4, 3.0, "euler", "normal", specimen.positive, specimen.negative)
    with torch.inference_mode(), one_thread():
        node = KSamplerAdvanced()
        (first,) = node.sample(model, "enable", *common, latent, 0, 2, "enable")
        node.sample(model, "disable", *common, first, 2, 10_000, "disable")
    noisy, clean = traces
    assert not noisy.final and any("still has noise" in note for note in noisy.notes)
    assert set(clean.final) == {"colors", "likeness"} and not clean.notes
    assert "likeness" not in noisy.summary()


def test_another_size_within_one_guided_model_is_said_where_a_map_is_stretched(specimen):
    """Tiles of an upscaler, the crop of a detailer: the whole picture's map lies over each."""
    region = torch.zeros(1, 64, 64)
    region[:, :32] = 1.0

    def warnings_of(conds):
        traces = []
        model = attach(specimen.patcher, conds, CHEAP, on_finish=traces.append)
        for size in ((8, 8), (8, 8), (8, 12)):
            sample(specimen, model, latent={"samples": torch.zeros(1, 4, *size)})
        assert not traces[0].warnings and not traces[1].warnings
        return traces[2].warnings

    first, second = conditions()
    (warning,) = warnings_of((first, Condition("left", second.energy, region=region)))
    assert "8x12" in warning and "8x8" in warning and "stretched" in warning
    assert not warnings_of((Condition("colors", ColorPalette(reference=torch.rand(1, 3, 8, 8))),))
    (warning,) = warnings_of((Condition("map", ReferenceImage(torch.rand(1, 3, 8, 8))),))
    assert "map" in warning


def broken_latents() -> dict[str, dict]:
    """Inputs in which something is not a number, as they come over the API."""
    nan = torch.zeros(2, 4, 8, 8)
    nan[1, 0, 0, 0] = torch.nan
    return {
        "latent": {"samples": nan},
        "mask": {
            "samples": torch.zeros(2, 4, 8, 8),
            "noise_mask": torch.full((1, 64, 64), torch.nan),
        },
    }


@pytest.mark.parametrize("case", ["latent", "mask", "cfg", "prediction"])
def test_what_is_not_a_number_costs_no_picture_and_is_said(specimen, case):
    model, options = specimen.patcher, {}
    if case == "cfg":
        options["cfg"] = torch.nan
    elif case == "prediction":
        model = model.clone()

        def post_cfg(args):
            out = args["denoised"].clone()
            out[1] = torch.nan
            return out

        model.set_model_sampler_post_cfg_function(post_cfg)
    else:
        options["latent"] = broken_latents()[case]
    samples, curves, report = sampler_node(specimen, conditions(), model=model, **options)
    assert samples.shape == (2, 4, 8, 8) and curves.ndim == 4
    pictures = {"prediction": "picture 2 of 2", "latent": "picture 2 of 2"}
    expected = pictures.get(case, "picture 1, 2 of 2")
    assert any("not finite" in w and expected in w for w in report["warnings"])
    if case == "prediction":
        assert torch.isfinite(samples[0]).all()


@pytest.mark.parametrize("broken", ["energy at the end", "plot", "listener"])
def test_no_report_loses_a_finished_picture(specimen, broken, monkeypatch):
    first, second = conditions()
    measured = second.energy
    if broken == "energy at the end":

        class Ends:
            """An energy that measures steps, and fails at the finished image."""

            finished = False

            def begin_run(self):
                return Ends()

            def begin_step(self, step):
                self.finished = step is None

            def __call__(self, image, region=None):
                if self.finished:
                    raise RuntimeError("cannot measure this")
                return measured(image, region)

        second = Condition("ends", Ends())
    elif broken == "plot":

        def fails(report):
            raise TypeError("cannot draw this")

        monkeypatch.setattr(run_reports, "run_figure", fails)
    else:

        def fails(node, trace):
            raise OSError("cannot tell this")

        monkeypatch.setattr(sampler_nodes, "tell", fails)
    samples, curves, report = sampler_node(specimen, (first, second))
    assert torch.isfinite(samples).all() and curves.shape[-1] == 3
    assert len(report["steps"]) == 3
    if broken == "energy at the end":
        assert any("cannot measure this" in warning for warning in report["warnings"])


def test_a_sampling_of_nothing_says_so(specimen):
    latent = {"samples": torch.ones(1, 4, 8, 8)}
    samples, _, report = sampler_node(specimen, conditions(), latent=latent, denoise=0.0)
    assert torch.equal(samples, latent["samples"])
    assert report["warnings"] == ["Nothing was sampled and guided: denoise is 0."]
