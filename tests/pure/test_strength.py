"""Strength means the same: how far the corrections of a whole sampling move a picture.

The latents are normally distributed, so that the denoiser is known in closed form, and the one
condition pulls in a direction that never changes.
"""

import math

import pytest
import torch
from torch import Tensor

from zmagic.guidance.conditions import Condition
from zmagic.guidance.engine import GuidedRun
from zmagic.guidance.norms import peak, rms
from zmagic.guidance.schedule import NoiseLevel, Schedule
from zmagic.guidance.settings import PRESETS, GuidanceSettings, preset
from zmagic.guidance.steps import StepState, step

STRENGTH = 0.1
LARGEST = 14.6  # noise of Stable Diffusion
NOISE = torch.randn(1, 3, 32, 32, generator=torch.manual_seed(0), dtype=torch.float64)
PULL = torch.randn(1, 3, 32, 32, generator=torch.manual_seed(1), dtype=torch.float64)


def stable_diffusion(steps: int) -> Schedule:
    """Noise levels of its training, evenly in time."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    products = (1.0 - betas).cumprod(0)[torch.linspace(999, 0, steps).long()]
    return Schedule.edm([*((1.0 - products) / products).sqrt().tolist(), 0.0])


def karras(steps: int) -> Schedule:
    spaced = torch.linspace(LARGEST ** (1 / 7), 0.03 ** (1 / 7), steps, dtype=torch.float64) ** 7
    return Schedule.edm([*spaced.tolist(), 0.0])


def preserving(steps: int) -> Schedule:
    sigmas = torch.tensor(karras(steps).sigmas, dtype=torch.float64)
    return Schedule.variance_preserving((1.0 / (1.0 + sigmas.square())).tolist())


def flow(steps: int) -> Schedule:
    times = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    return Schedule.flow((3.0 * times / (1.0 + 2.0 * times)).tolist())


def sampled(schedule: Schedule, settings: GuidanceSettings) -> Tensor:
    """The end of an Euler sampling."""
    pull = Condition("pull", lambda image, region=None: -(image * PULL).flatten(1).mean(1))
    run = GuidedRun([pull], settings, decode=lambda z: z, schedule=schedule)
    levels = [schedule.noise_level(sigma) for sigma in schedule.sigmas]
    x = NOISE * math.hypot(levels[0].alpha, levels[0].s)
    for sigma, level, lower in zip(schedule.sigmas, levels, levels[1:], strict=False):
        share = level.alpha / (level.alpha**2 + level.s**2)
        prediction = run.predict(x, sigma, lambda z, share=share: share * z)
        kept = lower.s / level.s
        x = kept * x + (lower.alpha - kept * level.alpha) * prediction
    return x


def moved(schedule: Schedule, settings: GuidanceSettings) -> float:
    """How far guidance moves the picture, in strengths."""
    unguided = sampled(schedule, preset("balanced", strength=0.0))
    difference = sampled(schedule, settings) - unguided
    return float(difference.square().mean().sqrt()) / settings.strength


@pytest.mark.parametrize("steps", [10, 20, 50])
@pytest.mark.parametrize("schedule", [stable_diffusion, karras, preserving, flow])
def test_the_posterior_rule_moves_a_picture_as_far_in_every_sampling(schedule, steps):
    distance = moved(schedule(steps), preset("balanced", strength=STRENGTH))
    assert 0.85 * math.pi / 2 < distance < math.pi / 2


@pytest.mark.parametrize("schedule", [stable_diffusion, karras, preserving])
def test_all_presets_that_guide_every_step_once_move_it_as_far(schedule):
    named = ("balanced", "faithful", "FreeDoM baseline", "MPGD baseline")
    distances = [moved(schedule(20), preset(name, strength=STRENGTH)) for name in named]
    assert max(distances) < 1.1 * min(distances)


@pytest.mark.parametrize(
    ("schedule", "steps", "least", "most"),
    [
        (stable_diffusion, 10, 1.0, 1.2),
        (stable_diffusion, 5, 1.3, 1.6),
        (flow, 20, 1.1, 1.3),
    ],
)
def test_where_the_residual_rule_goes_further_is_known(schedule, steps, least, most):
    """The help of the settings and the method page say so."""
    ratio = moved(schedule(steps), preset("faithful", strength=STRENGTH)) / moved(
        schedule(steps), preset("balanced", strength=STRENGTH)
    )
    assert least < ratio < most


@pytest.mark.parametrize("name", ["faithful", "FreeDoM baseline", "MPGD baseline"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_published_presets_make_the_picture_of_their_published_number(name, dtype):
    """Bit for bit ``D + 0.3 * RMS(D - x) * d / RMS(d)``: the factor is a power of two."""
    x, d, prediction = (scale * NOISE.roll(k, -1).to(dtype) for k, scale in enumerate((3, 5, 1)))
    state = StepState(x, prediction, d, NoiseLevel(1.0, 2.0), torch.zeros(1))
    length = rms(prediction - x)[:, None, None, None]
    expected = prediction + 0.3 * (length * (d / peak(d) / rms(d / peak(d))))
    corrected = step(state, PRESETS[name].step_rule, PRESETS[name].strength)
    assert torch.equal(corrected, expected)
