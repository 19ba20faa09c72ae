"""The search for a noise: it moves on the sphere or in the set, keeps the best, and says so."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.noise_run import NoiseRun
from zmagic.guidance.noise_search import NoiseSearch, settings_of_search
from zmagic.guidance.norms import rms
from zmagic.guidance.operations import OperationCounter
from zmagic.guidance.settings import PRESETS, GuidanceSettings, preset
from zmagic.guidance.white_noise import whitened

from .conftest import SCHEDULE

EVALUATIONS = 12


def noise(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, 4, 4, generator=torch.Generator().manual_seed(9))


def searched(world, conditions=None, settings=None, sample=None, batch=2, **options):
    """What a search finds, and its run."""
    search = NoiseSearch(**{"evaluations": EVALUATIONS, "rate": 0.2} | options.pop("search", {}))
    run = NoiseRun(
        conditions or world.conditions(2),
        settings or GuidanceSettings(),
        search,
        decode=lambda latent: world.decode(latent.double()),
        schedule=SCHEDULE,
        **options,
    )
    seen: list[torch.Tensor] = []

    def picture(z: torch.Tensor) -> torch.Tensor:
        seen.append(z.detach().clone())
        return world.denoise(z.double())

    found = run.search(noise(batch), sample or picture)
    return SimpleNamespace(found=found, run=run, seen=seen, trace=run.trace)


def energies(made) -> torch.Tensor:
    """``[evaluations, conditions, batch]``."""
    return torch.tensor([record.energies for record in made.trace.steps])


@pytest.mark.parametrize("white", [True, False])
@pytest.mark.parametrize("path", ["image", "prediction", "full", "image_no_backprop"])
def test_energies_fall_and_the_noise_stays_noise(world, white, path):
    made = searched(world, settings=preset("balanced", gradient_path=path), search={"white": white})
    assert torch.equal(made.seen[0], noise())
    assert len(made.seen) == len(made.trace.steps) == EVALUATIONS  # one picture each
    found = energies(made)
    assert (found[-1] < found[0]).all()
    for z in made.seen:
        assert torch.allclose(rms(z), rms(noise()), rtol=1e-4)
        if white:  # the first one is the given noise as it is
            cosine = torch.cosine_similarity(z.flatten(1), whitened(z).flatten(1))
            assert (cosine > 0.97).all()


def test_the_best_is_kept_for_each_picture_if_later_ones_are_worse(world):
    made = searched(world, search={"rate": 50.0})  # far too long: it wanders
    best = made.trace.noise.best
    expected = torch.stack([made.seen[number][b] for b, number in enumerate(best)])
    assert torch.equal(made.found, expected)
    found = energies(made)
    for b, number in enumerate(best):  # nothing else is better by all conditions
        assert not (found[:, :, b] < found[number, :, b]).all(1).any()


def test_a_picture_alone_goes_the_same_way_as_in_a_batch(world):
    together, alone = searched(world, batch=2), searched(world, batch=1)
    for a, b in zip(together.seen, alone.seen, strict=True):
        assert torch.allclose(a[:1], b, atol=1e-5)


def test_one_evaluation_is_the_noise_itself(world):
    made = searched(world, search={"evaluations": 1})
    assert torch.equal(made.found, noise())
    assert made.trace.steps[0].path == "measure" and not made.trace.steps[0].backwards


def test_every_step_of_the_sampler_is_counted(world):
    made = searched(world, search={"evaluations": 3})
    steps = len(SCHEDULE.sigmas) - 1
    assert [record.forwards["denoiser"] for record in made.trace.steps] == [steps] * 3
    assert [record.backwards.get("denoiser", 0) for record in made.trace.steps] == [steps, steps, 0]


def test_windows_have_no_effect_and_that_is_said(world):
    first, second = world.conditions(2)
    early = replace(first, start=0.8, end=0.9)
    made = searched(world, (early, second), search={"evaluations": 2})
    plain = searched(world, (first, second), search={"evaluations": 2})
    assert energies(made).equal(energies(plain))
    assert any(first.name in note and "window" in note for note in made.trace.notes)


def test_what_is_satisfied_stays_and_ends_the_search(world):
    """One picture is satisfied from the first look on, then both."""
    first = world.conditions(1)[0]
    start = energies(searched(world, [first]))[0, 0].tolist()
    between = sum(start) / 2.0
    made = searched(world, [replace(first, satisfied_at=between)])
    done = start.index(min(start))
    assert all(torch.equal(z[done], noise()[done]) for z in made.seen)
    assert not torch.equal(made.seen[1][1 - done], noise()[1 - done])
    made = searched(world, [replace(first, satisfied_at=2.0 * max(start))])
    assert made.trace.noise.evaluations == 1 and torch.equal(made.found, noise())
    assert any("ended after 1 of" in note for note in made.trace.notes)


def test_conditions_without_weight_leave_the_noise_and_say_so(world):
    off = tuple(replace(condition, weight=0.0) for condition in world.conditions(2))
    made = searched(world, off)
    assert torch.equal(made.found, noise()) and made.trace.noise is None
    assert any("weight" in warning for warning in made.trace.warnings)


def test_the_gradient_always_goes_through_the_model():
    for name, settings in PRESETS.items():
        taken = settings_of_search(settings)
        assert taken.backpropagates, name
        assert (taken.dependence, taken.balance) == (settings.dependence, settings.balance)
        assert (taken.time_travel, taken.guide_every, taken.mean_steps) == (1, 1, 1)


def test_the_report_lists_what_acts_and_warns_of_what_is_set_and_does_not(world):
    settings = preset("few steps", strength=0.7, balance="sum", gradient_path="full")
    trace = searched(world, settings=settings, search={"evaluations": 2}).trace
    assert trace.settings == {
        "gradient_path": "prediction",
        "balance": "sum",
        **{n: getattr(settings, n) for n in ("dependence", "look_ahead", "tasks", "order")},
        "cagrad_c": settings.cagrad_c,
    }
    idle, path = trace.warnings
    assert idle.startswith("strength 0.7, guided_share 0.5, mean_steps 4 of the settings (or")
    assert path.startswith("gradient_path full is taken as prediction")
    assert not searched(world, search={"evaluations": 2}).trace.warnings


def test_a_sampler_that_asks_the_model_twice_a_step_is_counted_and_costs_that(world):
    run = NoiseRun(
        world.conditions(2),
        GuidanceSettings(),
        NoiseSearch(evaluations=3),
        decode=lambda latent: world.decode(latent.double()),
        schedule=SCHEDULE,
    )

    def sample(z):
        for _ in range(2):
            run.predicted()
            z = world.denoise(z.double())
        return z

    x = noise()
    with OperationCounter() as plain:
        world.denoise(x.double())
    with OperationCounter() as everything:
        found = run.search(x, sample)
    run.trace.plain_forwards = 2  # the picture of the noise that was found
    cost = run.finish(found.double()).cost["total"]
    assert [record.forwards["denoiser"] for record in run.trace.steps] == [2, 2, 2]
    assert [record.backwards.get("denoiser", 0) for record in run.trace.steps] == [2, 2, 0]
    taken = everything.totals.total() + 2 * plain.totals.total()
    assert cost == pytest.approx(taken / (2 * plain.totals.total()), rel=1e-4)


def test_a_sampler_without_a_gradient_is_named(world):
    with pytest.raises(ValueError, match="choose the sampler euler"):
        searched(world, sample=lambda z: world.denoise(z.double()).detach())


def test_short_memory_takes_less_and_then_the_best_so_far(world):
    asked: list[int] = []

    def sample(z):
        asked.append(1)
        if len(asked) in (2, 5, 6):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return world.denoise(z.double())

    ways = iter(["blocks run a second time"])
    made = searched(world, sample=sample, save_memory=lambda: next(ways, None))
    first, second = made.trace.warnings
    assert "blocks run a second time" in first
    assert "ended after 3 of 12 evaluations" in second
    assert made.trace.noise.evaluations == len(made.trace.steps) == 3


def test_short_memory_at_the_first_picture_is_raised(world):
    def sample(z):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(torch.OutOfMemoryError):
        searched(world, sample=sample)


@pytest.mark.parametrize("values", [{"evaluations": 0}, {"rate": 0.0}, {"rate": float("nan")}])
def test_a_value_outside_its_range_is_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        NoiseSearch(**values)


def test_the_sentence_says_which_noise_it_is(world):
    made = searched(world, [Condition("one", world.conditions(1)[0].energy)], batch=1)
    assert f"the best of {EVALUATIONS} noises is number" in made.trace.words()
