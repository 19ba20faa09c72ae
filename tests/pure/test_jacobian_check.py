"""The one look at whether a gradient through the denoiser is the slope of its prediction."""

import pytest
import torch

from zmagic.guidance.jacobian_check import STEP, PullBack, has_right_slope

SIGMA = 2.0
PATHS = ("full", "prediction", "image")


def guided(world, denoise, path, **options):
    run = world.run(world.conditions(2), gradient_path=path, check_slope=True, **options)
    calls = []

    def counted(z):
        calls.append(1)
        return denoise(z)

    return run.predict(world.latent(batch=2), SIGMA, counted), run, len(calls)


@pytest.mark.parametrize("path", PATHS)
def test_a_right_gradient_passes_and_costs_one_forward_once(world, path):
    first, run, calls = guided(world, world.denoise, path)
    unchecked = world.run(world.conditions(2), gradient_path=path)
    assert torch.equal(first, unchecked.predict(world.latent(batch=2), SIGMA, world.denoise))
    assert not run.trace.warnings
    assert run.trace.totals()["forwards"]["denoiser check"] == 1
    assert calls == run.trace.totals()["forwards"]["denoiser"] + 1
    run.predict(world.latent(batch=2), 1.0, world.denoise)
    assert run.trace.totals()["forwards"]["denoiser check"] == 1


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("share", [0.0, 0.5, 2.0], ids=["a skip", "half detached", "doubled"])
def test_a_wrong_gradient_is_noticed_and_not_followed(world, path, share):
    def wrong(z):
        """The right prediction with ``share`` of its gradient, or with that of a skip."""
        value = world.denoise(z)
        slope = share * value if share else 0.1 * z
        return value.detach() + slope - slope.detach()

    corrected, run, _ = guided(world, wrong, path)
    (warning,) = run.trace.warnings
    assert "not the slope of its prediction" in warning
    without = "image_no_backprop" if path == "image" else "no_backprop"
    plain = world.run(world.conditions(2), gradient_path=without)
    x = world.latent(batch=2)
    assert torch.allclose(corrected, plain.predict(x, SIGMA, world.denoise))
    run.predict(x, 1.0, wrong)
    assert run.trace.steps[-1].path == without and len(run.trace.warnings) == 1


@pytest.mark.parametrize("noise", [1e-3, 4e-3])
def test_rounding_of_half_precision_is_no_wrong_gradient(world, noise):
    def rounded(z):
        value = world.denoise(z)
        return value + noise * value.std() * torch.randn_like(value)

    for seed in range(20):
        torch.manual_seed(seed)
        assert not guided(world, rounded, "prediction")[1].trace.warnings


def test_a_picture_that_is_not_finite_says_nothing_of_the_others(world):
    def broken(z):
        value = world.denoise(z)
        return torch.cat([value[:1], value[1:] * torch.nan])

    run = guided(world, broken, "prediction")[1]
    assert not any("slope" in warning for warning in run.trace.warnings)
    assert any("picture 2 of 2" in warning for warning in run.trace.warnings)


def test_a_curved_prediction_is_looked_at_again_a_tenth_as_far():
    """``D(x) = x + a (x - 1)^2`` at 1: its slope there is 1, and that of the first look 1.5."""
    x = torch.ones(1, 1, 4, 4)
    lengths = []

    def curved(z):
        lengths.append(float((z - x).mean()))
        return z + 0.5 / STEP * (z - x).square()

    assert has_right_slope(PullBack(x, x, torch.ones_like(x), torch.ones_like(x)), curved)
    assert lengths == pytest.approx([STEP, STEP / 10], rel=1e-3)
