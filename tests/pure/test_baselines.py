"""The published methods that the tables compare with do what their papers say."""

import math
from dataclasses import replace

import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.engine import GuidedRun
from zmagic.guidance.neighborhood import smoothed
from zmagic.guidance.norms import rms
from zmagic.guidance.schedule import Schedule
from zmagic.guidance.settings import PRESETS, GuidanceSettings, preset
from zmagic.guidance.steps import StepState, step

SIGMA = 2.0
NOISE, PREDICTION, DIRECTION, DRAWN = torch.randn(
    4, 2, 4, 16, 16, generator=torch.manual_seed(0), dtype=torch.float64
)
SCHEDULES = {
    "edm": Schedule.edm([10.0, 4.0, 1.0, 0.0]),
    "flow": Schedule.flow([1.0, 0.7, 0.2, 0.0]),
    "preserving": Schedule.variance_preserving([0.01, 0.1, 0.5, 1.0]),
}


def predict(world, x, settings, n=2):
    run = world.run(world.conditions(n), **settings.__dict__)
    return run.predict(x, SIGMA, world.denoise), run.trace


def spherical_step(schedule, place, strength):
    """Where Euler's solver ends, DDPM's mean and deviation of the same step."""
    level, lower = (schedule.noise_level(sigma) for sigma in schedule.sigmas[place : place + 2])
    x = level.alpha * PREDICTION + level.s * NOISE
    merit = torch.ones(len(x))
    state = StepState(x, PREDICTION, DIRECTION, level, merit, lower=lower, noise=DRAWN)
    corrected = step(state, "spherical", strength)
    kept = lower.s / level.s
    reached = kept * x + (lower.alpha - kept * level.alpha) * corrected
    variance = lower.s**2 * (1.0 - (level.alpha * lower.s / (lower.alpha * level.s)) ** 2)
    mean = lower.alpha * PREDICTION + math.sqrt(lower.s**2 - variance) * NOISE
    return reached, mean, math.sqrt(variance)


@pytest.mark.parametrize("strength", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_step_of_dsg_ends_on_the_sphere_of_the_noise(name, place, strength):
    reached, mean, deviation = spherical_step(SCHEDULES[name], place, strength)
    distance = (reached - mean).flatten(1).norm(dim=1)
    radius = math.sqrt(PREDICTION[0].numel()) * deviation
    assert torch.allclose(distance, torch.full_like(distance, radius))


def test_a_whole_rate_goes_along_the_direction_and_a_small_one_where_the_noise_goes():
    for strength, wanted in ((1.0, DIRECTION), (1e-6, DRAWN)):
        reached, mean, _ = spherical_step(SCHEDULES["edm"], 0, strength)
        cosine = torch.cosine_similarity((reached - mean).flatten(1), wanted.flatten(1))
        assert torch.allclose(cosine, torch.ones_like(cosine))


def test_the_last_step_has_no_noise_and_no_correction():
    reached, _, _ = spherical_step(SCHEDULES["edm"], 2, 0.5)
    assert torch.allclose(reached, PREDICTION)


def sampled(schedule, settings, solve):
    """A sampling of standard normal latents that a condition pulls."""
    pull = Condition("pull", lambda image, region=None: (image - 1.0).square().flatten(1).mean(1))
    run = GuidedRun([pull], settings, decode=lambda z: z, schedule=schedule)

    def predict(x, sigma):
        level = schedule.noise_level(sigma)
        share = level.alpha / (level.alpha**2 + level.s**2)
        return run.predict(x, sigma, lambda z: share * z)

    x = solve(predict, NOISE * schedule.sigmas[0], schedule.sigmas)
    return run.finish(x)


def euler(predict, x, sigmas):
    for sigma, lower in zip(sigmas, sigmas[1:], strict=False):
        x = x + (x - predict(x, sigma)) / sigma * (lower - sigma)
    return x


def two_step(predict, x, sigmas):
    """The multistep solver DPM-Solver++(2M) without its logarithms: it mixes two predictions."""
    before = None
    for sigma, lower in zip(sigmas, sigmas[1:], strict=False):
        denoised = predict(x, sigma)
        mixed = denoised if before is None else 1.5 * denoised - 0.5 * before
        x, before = x + (x - mixed) / sigma * (lower - sigma), denoised
    return x


def heun(predict, x, sigmas):
    for sigma, lower in zip(sigmas, sigmas[1:], strict=False):
        slope = (x - predict(x, sigma)) / sigma
        ahead = x + slope * (lower - sigma)
        if lower:
            slope = 0.5 * (slope + (ahead - predict(ahead, lower)) / lower)
        x = x + slope * (lower - sigma)
    return x


def with_noise(predict, x, sigmas):
    generator = torch.manual_seed(3)
    for sigma, lower in zip(sigmas, sigmas[1:], strict=False):
        denoised = predict(x, sigma)
        x = denoised + lower * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x


@pytest.mark.parametrize(
    ("solve", "warned"), [(euler, False), (two_step, True), (heun, True), (with_noise, True)]
)
def test_dsg_says_so_if_the_solver_ends_elsewhere(solve, warned):
    schedule = Schedule.edm([10.0, 6.0, 3.0, 1.0, 0.3, 0.0])
    trace = sampled(schedule, preset("DSG baseline"), solve)
    assert any("euler" in warning for warning in trace.warnings) == warned
    assert not sampled(schedule, preset("balanced"), solve).warnings


def test_dsg_compares_no_steps_between_which_nothing_guides():
    schedule = Schedule.edm([10.0, 6.0, 3.0, 1.0, 0.3, 0.0])
    assert not sampled(schedule, preset("DSG baseline", guide_every=2), euler).warnings


def test_dsg_lowers_the_energy_and_more_of_it_lowers_it_more():
    schedule = Schedule.edm([10.0, 6.0, 3.0, 1.5, 0.7, 0.3, 0.1, 0.0])
    ends = [
        sum(sampled(schedule, preset("DSG baseline", strength=s), euler).final["pull"])
        for s in (0.0, 0.1, 0.3)
    ]
    assert ends[2] < ends[1] < ends[0]


def test_tfg_is_freedom_without_mean_guidance_and_smoothing(world):
    x = world.latent(batch=2)
    freedom = PRESETS["FreeDoM baseline"]
    shared = {name: getattr(freedom, name) for name in ("gradient_path", "step_rule", "strength")}
    reduced = preset("TFG baseline", mean_share=0.0, mean_steps=1, smoothing=0.0, **shared)
    assert reduced == freedom
    assert not torch.equal(
        predict(world, x, preset("TFG baseline", **shared))[0], predict(world, x, freedom)[0]
    )


def test_tfg_is_mpgd_with_one_step_of_mean_guidance_alone(world):
    mpgd = PRESETS["MPGD baseline"]
    shared = {name: getattr(mpgd, name) for name in ("gradient_path", "step_rule", "strength")}
    reduced = preset("TFG baseline", mean_share=0.0, mean_steps=1, smoothing=0.0, **shared)
    assert reduced == mpgd
    # All of the strength is mean guidance there, whatever its share.
    x = world.latent(batch=2)
    assert torch.equal(
        predict(world, x, replace(mpgd, mean_share=0.7))[0], predict(world, x, mpgd)[0]
    )


def test_tfg_is_ugd_without_smoothing(world):
    ugd = PRESETS["UGD baseline"]
    assert preset("TFG baseline", smoothing=0.0, time_travel=ugd.time_travel) == ugd


@pytest.mark.parametrize("path", ["no_backprop", "image_no_backprop"])
def test_backward_guidance_of_ugd_minimizes_the_energy_of_the_prediction(world, path):
    """It is what the preset does behind the model: with more steps it ends lower."""
    x = world.latent(batch=3)
    conditions = world.conditions(2)

    def energy(settings):
        run = world.run(conditions, **settings.__dict__)
        image = world.decode(run.predict(x, SIGMA, world.denoise))
        return sum(c.energy(image) for c in conditions)

    before = sum(c.energy(world.decode(world.denoise(x))) for c in conditions)
    settings = preset("UGD baseline", time_travel=1, gradient_path=path, strength=2.0)
    one, many = (energy(replace(settings, mean_steps=steps)) for steps in (1, 16))
    assert (many < one).all() and (many < before).all()


def test_forward_and_backward_guidance_are_added(world):
    x = world.latent(batch=2)
    whole = preset("UGD baseline", time_travel=1, strength=0.4)
    shared = replace(whole, mean_share=0.0, mean_steps=1, strength=0.2)
    forward = predict(world, x, shared)[0] - world.denoise(x)
    behind = replace(shared, gradient_path="image_no_backprop", mean_steps=whole.mean_steps)
    backward = predict(world, x, behind)[0] - world.denoise(x)
    both = predict(world, x, whole)[0] - world.denoise(x)
    assert torch.allclose(both, forward + backward, atol=1e-12)


def test_the_steps_of_a_prediction_are_no_longer_than_the_strength(world):
    x = world.latent(batch=2)
    longest = 0.4 * SIGMA / math.hypot(1.0, SIGMA)
    for steps in (1, 4):
        settings = preset("TFG baseline", strength=0.4, mean_steps=steps)
        moved = rms(predict(world, x, settings)[0] - world.denoise(x))
        assert (moved <= longest * (1.0 + 1e-9)).all() and (moved > 0.5 * longest).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_what_the_baselines_evaluate(world, n):
    """Model, then decoder, forwards and backwards, of one guided prediction."""
    counts = {}
    for name in ("DSG baseline", "TFG baseline", "UGD baseline"):
        settings = preset(name, time_travel=1)
        record = predict(world, world.latent(), settings, n)[1].steps[0]
        counts[name] = [
            (record.forwards[stage], record.backwards[stage]) for stage in ("denoiser", "decoder")
        ]
    assert counts == {
        "DSG baseline": [(1, 1), (1, 1)],
        "TFG baseline": [(1, 1), (20, 20)],  # 4 samples of D and of 4 steps behind it
        "UGD baseline": [(1, 1), (5, 5)],
    }


@pytest.mark.parametrize("name", ["TFG baseline", "UGD baseline", "DSG baseline"])
def test_every_picture_is_the_same_alone_and_in_a_batch(world, name):
    x = world.latent(batch=2)
    together = predict(world, x, preset(name))[0]
    alone = predict(world, x[:1], preset(name))[0]
    assert torch.allclose(together[:1], alone, rtol=1e-8, atol=1e-10)


def test_a_narrow_neighborhood_is_the_prediction_itself(world):
    x = world.latent(batch=2)
    plain = predict(world, x, preset("TFG baseline", smoothing=0.0))[0]
    narrow = predict(world, x, preset("TFG baseline", smoothing=1e-7))[0]
    wide = predict(world, x, preset("TFG baseline", smoothing=0.5))[0]
    assert torch.allclose(plain, narrow, atol=1e-6) and not torch.allclose(plain, wide, atol=1e-3)


def test_smoothing_means_the_likelihood():
    energies = torch.tensor([[0.3, 2.0], [1.7, 2.0], [0.1, 2.0]], dtype=torch.float64)
    assert torch.allclose(smoothed(energies), -(-energies).exp().mean(0).log())
    assert smoothed(energies)[1] == pytest.approx(2.0)  # equal neighbors change nothing


@pytest.mark.parametrize("path", ["full", "image"])
def test_the_neighborhood_stays_within_a_look(world, path):
    """Differences of two gradients are Hessian products, as without it."""
    x = world.latent(batch=2)
    settings = GuidanceSettings(
        gradient_path=path, smoothing=0.3, look_ahead=1e-4, dependence="exact"
    )
    exact = predict(world, x, settings, n=3)[0]
    difference = predict(world, x, replace(settings, dependence="finite_difference"), n=3)[0]
    assert torch.allclose(exact, difference, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mean_share": 1.0}, "nothing for a gradient through the model"),
        ({"step_rule": "spherical", "mean_share": 0.5}, "ends a step on a sphere"),
        ({"step_rule": "spherical", "mean_steps": 2}, "ends a step on a sphere"),
        ({"step_rule": "spherical", "time_travel": 2}, "set time_travel to 1"),
        ({"step_rule": "spherical", "strength": 1.5}, "set strength to 1 or less.*got 1.5"),
        ({"smoothing_samples": 0}, "smoothing_samples must lie in"),
        ({"mean_share": 1.5}, "mean_share must lie in"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        GuidanceSettings(**changes)


def test_what_has_no_effect_is_said():
    assert preset("TFG baseline").without_effect == []
    assert GuidanceSettings(mean_steps=3).without_effect == [
        "mean_steps has no effect: mean_share is 0"
    ]
    assert preset("fast", mean_steps=3).without_effect == []
    assert preset("fast", mean_share=0.5).without_effect == [
        "mean_share has no effect: gradient_path is image_no_backprop"
    ]
    assert GuidanceSettings(smoothing_samples=2).without_effect == [
        "smoothing_samples has no effect: smoothing is 0"
    ]
