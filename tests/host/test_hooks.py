"""Guided sampling through the host's own samplers, guiders and options."""

import json
from dataclasses import replace

import comfy.model_management
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from nodes import common_ksampler

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import ColorPalette, ReferenceImage
from zmagic.guidance.settings import PRESETS, preset
from zmagic.host.hooks import HostSettings, attach
from zmagic.host.run import KEY, noise_level

from . import architectures
from .derivatives import one_thread, repeated

EPS, FLOW = "sd15", "sd3"
DEFAULT = HostSettings(preset("balanced"), "linear_rgb")
CHEAP = HostSettings(preset("balanced", gradient_path="image", time_travel=1), "linear_rgb")


@pytest.fixture(scope="module")
def specimens():
    with torch.inference_mode():
        return {name: architectures.DIFFUSION[name]() for name in (EPS, FLOW)}


def conditions(**options) -> tuple[Condition, ...]:
    generator = torch.Generator().manual_seed(4)
    first, second = torch.rand(2, 1, 3, 64, 64, generator=generator)
    return (
        Condition("colors", ColorPalette(reference=first), **options),
        Condition("likeness", ReferenceImage(second), **options),
    )


def sample(specimen, model, *, sampler="euler", scheduler="normal", seed=3, batch=2, **options):
    """The stock KSampler's function, as a prompt calls it."""
    shape = (batch, *specimen.latent.shape[1:])
    latent = options.pop("latent", {"samples": torch.zeros(shape)})
    with torch.inference_mode(), one_thread():
        return common_ksampler(
            model,
            seed,
            options.pop("steps", 3),
            options.pop("cfg", 3.0),
            sampler,
            scheduler,
            specimen.positive,
            specimen.negative,
            latent,
            **options,
        )[0]["samples"]


def guided(specimen, settings=CHEAP, conds=None, **options):
    """The samples and the trace of a guided run."""
    traces = []
    conds = conditions() if conds is None else conds
    samples = sample(
        specimen,
        attach(specimen.patcher, conds, settings, on_finish=traces.append),
        **options,
    )
    return samples, traces[0]


@pytest.mark.parametrize("family", [EPS, FLOW])
@pytest.mark.parametrize("sampler", comfy.samplers.KSampler.SAMPLERS)
def test_every_stock_sampler_is_guided(specimens, family, sampler):
    """Random weights predict no image, so that only steps taken on the prediction itself, which
    the solver then follows, must lower the energies; the preset ``fast`` takes such steps."""

    def run(strength):
        chosen = preset("fast", guide_every=1, step_rule="residual", strength=strength)
        settings = HostSettings(chosen, "linear_rgb")
        return guided(specimens[family], settings, sampler=sampler, scheduler="simple")

    samples, trace = run(0.1)
    plain = run(0.0)[1]
    assert torch.isfinite(samples).all()
    assert len(trace.steps) >= 3 and not trace.warnings
    for name, values in trace.final.items():
        assert sum(values) < sum(plain.final[name]), name


@pytest.mark.parametrize("scheduler", comfy.samplers.KSampler.SCHEDULERS)
def test_every_stock_scheduler_is_guided(specimens, scheduler):
    samples, trace = guided(specimens[EPS], scheduler=scheduler)
    assert torch.isfinite(samples).all()
    assert trace.steps


@pytest.mark.parametrize("family", [EPS, FLOW])
@pytest.mark.parametrize(
    "off",
    [
        lambda: (conditions(), HostSettings(preset("balanced", strength=0.0), "linear_rgb")),
        lambda: (conditions(weight=0.0), DEFAULT),
        lambda: (conditions(start=0.5, end=0.5), DEFAULT),
        lambda: (conditions(region=torch.zeros(1, 64, 64)), DEFAULT),
    ],
    ids=["strength 0", "weight 0", "empty window", "empty region"],
)
def test_nothing_to_do_is_the_plain_result_bit_for_bit(specimens, family, off):
    conds, settings = off()
    specimen = specimens[family]
    assert torch.equal(
        guided(specimen, settings, conds, sampler="dpmpp_2m_sde")[0],
        sample(specimen, specimen.patcher, sampler="dpmpp_2m_sde"),
    )


@pytest.mark.parametrize("family", [EPS, FLOW])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs_and_repeats_exactly(specimens, family, name):
    settings = HostSettings(PRESETS[name], "linear_rgb")
    first, trace = guided(specimens[family], settings, steps=2)
    assert torch.isfinite(first).all() and not trace.warnings
    assert repeated(guided(specimens[family], settings, steps=2)[0], first)


@pytest.mark.parametrize("dependence", ["exact", "first_order"])
@pytest.mark.parametrize("path", ["full", "prediction", "image"])
def test_second_order_runs_in_the_host_and_agrees_with_finite_differences(
    specimens, path, dependence
):
    first, second = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    smooth = (  # the palette's sorting has kinks, at which a second derivative is not defined
        Condition("first", ReferenceImage(first)),
        Condition("second", ReferenceImage(second)),
    )

    def correction(dependence):
        settings = preset("faithful", gradient_path=path, dependence=dependence, look_ahead=1e-3)
        samples, trace = guided(
            specimens[EPS], HostSettings(settings, "linear_rgb"), smooth, steps=1, batch=1
        )
        return samples

    plain = sample(specimens[EPS], specimens[EPS].patcher, steps=1, batch=1)
    reference = correction("finite_difference") - plain
    error = (correction(dependence) - plain - reference).norm() / reference.norm()
    assert error < (0.02 if dependence == "exact" else 0.2)


def test_two_engines_on_one_model_are_one_engine(specimens):
    specimen = specimens[EPS]
    first, second = conditions()
    twice = attach(attach(specimen.patcher, (first,), CHEAP), (second,))
    assert repeated(
        sample(specimen, twice),
        sample(specimen, attach(specimen.patcher, (first, second), CHEAP)),
    )


def test_the_incoming_model_is_not_changed(specimens):
    model = specimens[EPS].patcher
    before = json.dumps([model.model_options, model.wrappers], default=str)
    guided(specimens[EPS])
    assert json.dumps([model.model_options, model.wrappers], default=str) == before
    assert model.get_attachment(KEY) is None and not model.additional_models


def test_each_image_of_a_batch_is_guided_for_itself(specimens):
    specimen = specimens[EPS]
    model = attach(specimen.patcher, conditions(), CHEAP)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(8))

    def run(noise):
        with torch.inference_mode(), one_thread():
            return comfy.samplers.sample(
                model,
                noise,
                specimen.positive,
                specimen.negative,
                3.0,
                model.load_device,
                comfy.samplers.sampler_object("euler"),
                torch.tensor([10.0, 4.0, 1.0, 0.0]),
                latent_image=torch.zeros_like(noise),
                seed=1,
            )

    together = run(noise)
    alone = torch.cat([run(noise[:1]), run(noise[1:])])
    # Rounding of float32 over three steps, whose size follows that of the latents.
    assert (together - alone).abs().max() < 1e-5 * together.std()


def test_image_to_image_starts_late_and_an_inpaint_mask_keeps_what_it_covers(specimens):
    specimen = specimens[EPS]
    image = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1.0
    latent = {"samples": image, "noise_mask": mask}
    samples, trace = guided(specimen, latent=latent, denoise=0.5, batch=1)
    assert trace.steps[0].sigma < 5.0
    assert torch.allclose(samples[..., :4], image[..., :4], atol=1e-5)
    assert not torch.allclose(samples[..., 4:], image[..., 4:], atol=0.1)


def test_windows_limit_the_guided_steps(specimens):
    trace = guided(specimens[EPS], conds=conditions(start=0.5), steps=8)[1]
    assert 0 < len(trace.steps) < 8
    assert trace.plain_forwards == 8 - len(trace.steps)


def test_progress_callbacks_come_as_without_guidance(specimens):
    specimen = specimens[EPS]

    def calls(model):
        seen = []
        with torch.inference_mode(), one_thread():
            comfy.samplers.sample(
                model,
                torch.randn(1, 4, 8, 8),
                specimen.positive,
                specimen.negative,
                3.0,
                model.load_device,
                comfy.samplers.sampler_object("heun"),
                torch.tensor([10.0, 4.0, 1.0, 0.0]),
                latent_image=torch.zeros(1, 4, 8, 8),
                callback=lambda step, x0, x, total: seen.append((step, total, x0.shape)),
                seed=1,
            )
        return seen

    assert calls(attach(specimen.patcher, conditions(), CHEAP)) == calls(specimen.patcher)


@pytest.mark.parametrize(
    "stop", [RuntimeError, comfy.model_management.InterruptProcessingException]
)
def test_a_run_that_ends_early_leaves_the_host_as_it_was(specimens, stop):
    specimen = specimens[EPS]
    before = sample(specimen, specimen.patcher)

    def failing(image, region=None):
        raise stop("stopped")

    model = attach(specimen.patcher, (Condition("failing", failing),), CHEAP)
    with pytest.raises(stop):
        sample(specimen, model)
    assert torch.equal(sample(specimen, specimen.patcher), before)
    assert KEY not in model.model_options
    assert guided(specimen)[1].steps


def test_a_prediction_detached_by_another_node_is_still_guided(specimens):
    specimen = specimens[EPS]
    model = specimen.patcher.clone()
    model.set_model_unet_function_wrapper(
        lambda apply_model, args: apply_model(args["input"], args["timestep"], **args["c"]).detach()
    )
    traces = []
    model = attach(model, conditions(), CHEAP, on_finish=traces.append)
    samples = sample(specimen, model)
    assert torch.isfinite(samples).all()
    assert [w for w in traces[0].warnings if "no_backprop" in w]
    assert {step.path for step in traces[0].steps} == {"image_no_backprop"}
    assert traces[0].totals()["forwards"]["denoiser"] == 3  # not one evaluation more


def test_the_freedom_step_rule_follows_the_cfg_gap(specimens):
    settings = HostSettings(
        replace(CHEAP.guidance, step_rule="freedom", strength=1.0), "linear_rgb"
    )
    sizes = [
        guided(specimens[EPS], settings, cfg=cfg, steps=1)[1].steps[0].correction[0]
        for cfg in (2.0, 4.0)
    ]
    assert sizes[1] == pytest.approx(2.0 * sizes[0], rel=1e-3)
    assert guided(specimens[EPS], settings, cfg=1.0)[1].steps[0].correction[0] > 0.0


def test_other_guiders_of_the_host_are_guided_too(specimens):
    specimen = specimens[EPS]
    traces = []
    model = attach(specimen.patcher, conditions(), CHEAP, on_finish=traces.append)
    with torch.inference_mode(), one_thread():
        guider = Guider_DualCFG(model)
        guider.set_cfg(3.0, 2.0)
        guider.set_conds(specimen.positive, specimen.positive, specimen.negative)
        samples = guider.sample(
            torch.randn(1, 4, 8, 8),
            torch.zeros(1, 4, 8, 8),
            comfy.samplers.sampler_object("euler"),
            torch.tensor([5.0, 1.0, 0.0]),
            disable_pbar=True,
            seed=1,
        )
    assert torch.isfinite(samples).all()
    assert len(traces[0].steps) == 2 and not traces[0].warnings


@pytest.mark.parametrize("weights", [torch.float16, torch.bfloat16])
def test_half_precision_weights(weights):
    with torch.inference_mode():
        specimen = architectures.sd15(weights, torch.float32)
    samples, trace = guided(specimen)
    assert torch.isfinite(samples).all() and not trace.warnings


def test_noise_level_is_that_of_the_models_sampling(specimens):
    eps = specimens[EPS].patcher.get_model_object("model_sampling")
    flow = specimens[FLOW].patcher.get_model_object("model_sampling")
    assert (noise_level(eps, 3.0).alpha, noise_level(eps, 3.0).s) == (1.0, 3.0)
    assert noise_level(flow, 0.25).alpha == pytest.approx(0.75)
    assert noise_level(flow, 0.25).s == pytest.approx(0.25)


def test_a_plain_denoiser_pass_costs_nothing_extra(specimens):
    """Forwards per run are those of the sampler; one backward each, whatever n."""
    totals = guided(specimens[EPS], steps=4)[1].totals()
    assert totals["forwards"]["denoiser"] == totals["backwards"]["denoiser"] == 4
