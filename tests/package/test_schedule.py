"""Schedules: the noise models that samplers of diffusers mix by, windows, and refusals."""

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from zmagic.guidance import Condition, Schedule

STEPS = 7


def ddim():
    """Return schedule, noising and timesteps of DDIM: x = sqrt(a) x0 + sqrt(1 - a) n."""
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(STEPS)
    products = [*scheduler.alphas_cumprod[scheduler.timesteps], 1.0]
    return Schedule.variance_preserving(products), scheduler.add_noise, scheduler.timesteps


def euler():
    """Return schedule, noising and timesteps of the Euler sampler: x = x0 + sigma n."""
    scheduler = EulerDiscreteScheduler()
    scheduler.set_timesteps(STEPS)
    return Schedule.edm(scheduler.sigmas), scheduler.add_noise, scheduler.timesteps


def flow():
    """Return schedule, noising and timesteps of flow matching: x = (1 - sigma) x0 + sigma n."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(STEPS)

    def add_noise(clean, noise, timestep):
        return scheduler.scale_noise(clean, timestep, noise)

    return Schedule.flow(scheduler.sigmas), add_noise, scheduler.timesteps


@pytest.mark.parametrize("made", [ddim, euler, flow])
def test_the_noise_model_is_that_of_the_sampler(made):
    schedule, add_noise, timesteps = made()
    clean, noise = torch.randn(2, 1, 4, 8, 8)
    for sigma, timestep in zip(schedule.sigmas, timesteps, strict=False):
        level = schedule.noise_level(sigma)
        noisy = add_noise(clean, noise, timestep[None])
        assert torch.allclose(level.alpha * clean + level.s * noise, noisy, atol=1e-4 * level.s)
        assert torch.allclose(level.noise(noisy, clean), noise, atol=1e-4)
    assert len(schedule.sigmas) == STEPS + 1
    end = schedule.noise_level(schedule.sigmas[-1])
    assert (end.alpha, end.s) == (1.0, 0.0)


def test_a_sigma_of_the_variance_preserving_schedule_is_that_of_the_exploding_one():
    preserving, exploding = ddim()[0], euler()[0]
    assert preserving.noise_level(2.0).posterior_spread == pytest.approx(
        exploding.noise_level(2.0).posterior_spread
    )


def test_fractions_of_the_sampling_go_by_its_steps():
    schedule = Schedule.edm(torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0]))
    places = [schedule.sigma_at(fraction) for fraction in (0.0, 0.25, 0.375, 0.5, 1.0)]
    assert places == [8.0, 4.0, 3.0, 2.0, 0.0]
    late = Condition("late", lambda image, region=None: image.mean((1, 2, 3)), start=0.5)
    active = [late.is_active(sigma, schedule.sigma_at) for sigma in schedule.sigmas]
    assert active == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("make", "levels", "message"),
    [
        (Schedule.edm, [1.0], "that of its end, got 1"),
        (Schedule.edm, [1.0, 2.0], "must decrease from step to step, got 2 after 1"),
        (Schedule.edm, [1.0, 1.0, 0.0], "must decrease"),
        (Schedule.edm, [float("nan"), 0.0], "numbers from 0 to inf, got nan"),
        (Schedule.edm, [1.0, -1.0], "got -1"),
        (Schedule.flow, [14.6, 1.0, 0.0], "numbers from 0 to 1, got 14.6"),
        (Schedule.variance_preserving, [0.0, 1.0], r"\(0, 1\], got 0; .* 2\*\*-24"),
        (Schedule.variance_preserving, [0.9, 0.1], "must decrease"),
    ],
)
def test_other_levels_are_refused_in_a_sentence(make, levels, message):
    with pytest.raises(ValueError, match=message):
        make(levels)
