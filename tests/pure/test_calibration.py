"""Calibration: the strength that is found is the largest at which every condition falls."""

import logging
from itertools import pairwise

import pytest
import torch

from zmagic.guidance.calibration import FACTORS, strongest_fall
from zmagic.guidance.conditions import Condition
from zmagic.guidance.engine import GuidedRun
from zmagic.guidance.operations import OperationCounter
from zmagic.guidance.schedule import Schedule
from zmagic.guidance.settings import PRESETS, preset
from zmagic.guidance.steps import PUBLISHED_UNIT

SIGMA = 2.0
SCHEDULE = Schedule.edm([SIGMA, 1.0, 0.5, 0.0])
SPREAD = SCHEDULE.noise_level(SIGMA).posterior_spread
# Of RMS 1: along it a bowl's energy is a parabola.
ALONG = torch.randn(1, 3, 8, 8, generator=torch.manual_seed(0), dtype=torch.float64)
ALONG /= ALONG.square().mean().sqrt()


def bowl(name: str, *bottoms: float, **options) -> Condition:
    """``(z - bottom)^2`` along ALONG, with a bottom for each picture of the batch."""
    targets = torch.tensor(bottoms, dtype=torch.float64).view(-1, 1, 1, 1) * ALONG

    def energy(image, region=None):
        return (image - targets).square().flatten(1).mean(1)

    return Condition(name, energy, **options)


def flat(x: torch.Tensor) -> torch.Tensor:
    """A prediction of 0, with a slope."""
    return 1e-9 * x


def run_of(conditions, name="balanced", **settings) -> GuidedRun:
    chosen = preset(name, **{"calibrate": True, "strength": 0.5, "look_ahead": 0.0, **settings})
    return GuidedRun(conditions, chosen, decode=lambda latent: latent, schedule=SCHEDULE)


def sampled(run: GuidedRun, batch: int = 1) -> torch.Tensor:
    """The end of an Euler sampling whose first prediction is 0."""
    x = 1e-9 * torch.ones(batch, 3, 8, 8, dtype=torch.float64)
    for sigma, lower in pairwise(SCHEDULE.sigmas):
        prediction = run.predict(x, sigma, lambda z, s=sigma: z / (1.0 + s * s))
        x = prediction + lower / sigma * (x - prediction)
    run.finish(x)
    return x


def largest(bottom: float, strengths, spread: float = SPREAD) -> float:
    """The largest strength that ends below the start: ``(s - b)^2 < b^2`` if ``s < 2 b``."""
    return max(strength for strength in strengths if strength * spread < 2.0 * bottom)


@pytest.mark.parametrize("strength", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("bottoms", [(0.5, 0.5), (0.5, 0.2), (0.1, 2.0), (9.0, 9.0)])
def test_the_largest_strength_at_which_all_fall(bottoms, strength):
    run = run_of([bowl("a", bottoms[0]), bowl("b", bottoms[1])], strength=strength)
    sampled(run)
    tried = [strength * factor for factor in FACTORS]
    expected = largest(min(bottoms), tried)
    found = run.trace.calibration
    assert found.strength == pytest.approx(expected) and found.rising == []
    assert found.tried == pytest.approx(tried) and found.conditions == ["a", "b"]
    for bottom, energies in zip(bottoms, found.energies, strict=True):
        parabola = [(s * SPREAD - bottom) ** 2 for s in (0.0, *tried)]
        assert energies == pytest.approx(parabola, rel=1e-4, abs=1e-9)
    assert f"calibrated: strength {expected:.3g}" in run.trace.words()
    assert not run.trace.warnings


def test_it_is_in_units_of_the_step_rule():
    """By ``residual`` from pure noise: half of the noise that is left, per strength."""
    noise = SIGMA * torch.ones(1, 3, 8, 8, dtype=torch.float64)
    run = run_of([bowl("a", 0.5)], "FreeDoM baseline", strength=1.0)
    run.predict(noise, SIGMA, flat)
    expected = largest(0.5, FACTORS, PUBLISHED_UNIT * SIGMA)
    assert run.trace.calibration.strength == pytest.approx(expected)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "DSG baseline"])
def test_the_run_is_the_one_of_the_strength_that_was_found(name):
    conditions = [bowl("a", 0.4, 0.9), bowl("b", 0.8, 0.3)]
    calibrated = run_of(conditions, name)
    found = sampled(calibrated, batch=2)
    strength = calibrated.trace.calibration.strength
    assert strength != 0.5
    plain = run_of(conditions, name, strength=strength, calibrate=False)
    assert torch.equal(found, sampled(plain, batch=2))
    assert torch.equal(found, sampled(run_of(conditions, name), batch=2))
    first, *others = calibrated.trace.steps
    without, *rest = plain.trace.steps
    # Energies of a neighborhood are no measure: those of the prediction are looked at as well.
    looks = len(FACTORS) + (calibrated.settings.smoothing > 0.0)
    assert first.forwards["decoder"] == without.forwards["decoder"] + looks
    assert first.energy_calls == without.energy_calls + 2 * looks
    assert first.forwards.get("denoiser") == without.forwards.get("denoiser")
    assert [each.forwards for each in others] == [each.forwards for each in rest]


def test_a_step_to_a_sphere_has_its_length_and_the_report_says_so():
    run = run_of([bowl("a", 0.4), bowl("b", 0.8)], "DSG baseline")
    plain = run_of([bowl("a", 0.4), bowl("b", 0.8)], "DSG baseline", calibrate=False)
    assert torch.equal(sampled(run), sampled(plain)) and run.trace.calibration is None
    assert "calibrate has no effect: step_rule is spherical" in run.trace.notes


def test_no_strength_for_all_takes_the_smallest_and_says_for_whom(caplog):
    """The heavier one pulls its opposite uphill."""
    conditions = [bowl("heavy", 1.0, weight=2.0), bowl("light", -1.0)]
    run = run_of(conditions, "FreeDoM baseline", step_rule="posterior")
    with caplog.at_level(logging.INFO):
        sampled(run)
    found = run.trace.calibration
    assert found.strength == pytest.approx(0.5 * FACTORS[0]) and found.rising == ["light"]
    (warning,) = run.trace.warnings
    assert warning.startswith("calibrate found no strength") and "light did not" in warning
    logged = [record.getMessage() for record in caplog.records]
    assert any(
        line.startswith("Z-Magic: calibrated: strength 0.05, heavy 1 -> ") for line in logged
    )


def test_one_strength_for_the_batch_by_the_mean_of_its_pictures():
    run = run_of([bowl("a", 0.05, 0.4)])
    sampled(run, batch=2)
    tried = [0.5 * factor for factor in FACTORS]
    assert run.trace.calibration.strength == pytest.approx(largest(0.225, tried))
    assert largest(0.05, tried) < largest(0.225, tried) < largest(0.4, tried)


def test_what_does_not_pull_does_not_count():
    """Neither a picture that is at its bottom, nor a condition that is everywhere."""
    run = run_of(
        [bowl("a", 0.0, 0.7), bowl("idle", 0.0, 0.0), bowl("later", 0.01, 0.01, start=0.9)]
    )
    x = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    run.predict(x, SIGMA, flat)
    found = run.trace.calibration
    assert found.conditions == ["a"]
    assert found.strength == pytest.approx(largest(0.7, [0.5 * factor for factor in FACTORS]))


def test_the_next_look_finds_it_where_nothing_pulls_at_the_first():
    asleep = [True]

    def energy(image, region=None):
        return ((image - 0.5) ** 2).flatten(1).mean(1) * (0.0 if asleep[0] else 1.0)

    run = run_of([Condition("sleeper", energy)])
    x = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    run.predict(x, SIGMA, flat)
    asleep[0] = False
    run.predict(x, SIGMA, lambda z: 0.0 * z)  # no direction comes through
    assert run.trace.calibration is None
    run.predict(x, 1.0, flat)
    assert run.trace.calibration.step == 1
    # Where nothing pulls nothing is tried.
    decoded = [record.forwards["decoder"] for record in run.trace.steps]
    assert decoded == [1, 1, 1 + len(FACTORS)]


def test_the_energies_of_a_shifted_picture_are_compared_with_those_of_a_shifted_picture(world):
    run = world.run(world.conditions(2), calibrate=True, random_shift=2, strength=1e-5)
    run.predict(world.latent(batch=3), SIGMA, world.denoise)
    found = run.trace.calibration
    for energies in found.energies:  # so small a step changes next to nothing, a shift would
        assert max(energies) - min(energies) < 1e-3 * energies[0]


def test_its_operations_are_counted(world):
    """Five decodings, and nothing of the model: these energies multiply no matrices."""

    def cost(**settings) -> dict[str, float]:
        run = world.run(world.conditions(2), gradient_path="image", strength=0.3, **settings)
        run.finish(run.predict(world.latent(), SIGMA, world.denoise))
        return run.trace.cost

    with OperationCounter() as counter:
        with counter.part("decoder", ""):
            world.decode(world.latent())
        with counter.part("denoiser", ""):
            world.denoise(world.latent())
    one = counter.totals["decoder", ""] / counter.totals["denoiser", ""]
    plain, calibrated = cost(), cost(calibrate=True)
    assert calibrated["denoiser"] == plain["denoiser"]
    assert calibrated["decoder"] == pytest.approx(plain["decoder"] + len(FACTORS) * one, rel=1e-5)


def test_calibrate_without_strength_says_that_it_has_no_effect():
    run = run_of([bowl("a", 0.5)], strength=0.0)
    sampled(run)
    assert run.trace.calibration is None
    assert "calibrate has no effect: strength is 0" in run.trace.notes


@pytest.mark.parametrize(
    ("energies", "place"),
    [
        ([[5.0, 4.0, 3.0, 2.0]], 2),
        ([[5.0, 4.0, 5.0, 2.0]], 0),
        ([[5.0, 1.0, 3.0, 5.1], [2.0, 1.0, 0.5, 0.1]], 1),
        ([[5.0, 6.0, 3.0, 2.0]], -1),
        ([[5.0, 4.0, float("nan"), 2.0]], 0),
        ([[5.0, float("inf"), 1.0, 1.0]], -1),
    ],
)
def test_a_strength_counts_up_to_the_first_at_which_one_rises(energies, place):
    assert strongest_fall(torch.tensor(energies)) == place
