"""Conditions that are satisfied do not pull: each picture of a batch for itself."""

from dataclasses import replace

import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.progress import Watch, look_line

from .conftest import SCHEDULE
from .test_engine import PATHS, energies, predict

ALWAYS, NEVER = 1e9, 0.0


def satisfied(conditions, limits):
    """The same conditions, with a value of the energy at which each is satisfied."""
    return tuple(
        replace(condition, satisfied_at=limit)
        for condition, limit in zip(conditions, limits, strict=True)
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dependence", ["finite_difference", "mutual", "exact", "off"])
def test_the_others_go_on_as_if_it_were_not_there(world, path, dependence):
    conditions, x = world.conditions(3), world.latent(batch=2)
    options = {"gradient_path": path, "dependence": dependence}
    asked = satisfied(conditions, (None, ALWAYS, NEVER))
    guided, trace = predict(world, asked, x, **options)
    expected, alone = predict(world, [conditions[0], conditions[2]], x, **options)
    assert torch.equal(guided, expected)
    record, other = trace.steps[0], alone.steps[0]
    assert (record.forwards, record.backwards) == (other.forwards, other.backwards)
    assert record.energy_calls == other.energy_calls + 1
    assert record.satisfied == [[False, False], [True, True], [False, False]]
    assert [[row[i] for i in (0, 2)] for row in record.cosines[0][::2]] == other.cosines[0]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("order", ["symmetric", "as_connected", "auto"])
def test_each_picture_is_satisfied_by_itself(world, path, order):
    conditions, x = world.conditions(3), world.latent(batch=2)
    first, second = energies(world, conditions, world.denoise(x))[1].tolist()
    asked = satisfied(conditions, (None, (first + second) / 2.0, None))
    options = {"gradient_path": path, "order": order}
    together, trace = predict(world, asked, x, **options)
    done = trace.steps[0].satisfied[1]
    assert done == [first < second, first > second]
    for b, is_done in enumerate(done):
        those = [conditions[0], conditions[2]] if is_done else conditions
        alone, picture = predict(world, those, x[b : b + 1], **options), together[b : b + 1]
        assert torch.allclose(picture, alone[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("path", PATHS)
def test_where_all_are_satisfied_nothing_is_corrected_and_nothing_goes_backward(world, path):
    x = world.latent(batch=2)
    asked = satisfied(world.conditions(2), (ALWAYS, ALWAYS))
    guided, trace = predict(world, asked, x, gradient_path=path, momentum=0.5)
    assert torch.equal(guided, world.denoise(x))
    assert trace.steps[0].backwards == {} and trace.steps[0].energy_calls == 2
    assert trace.steps[0].forwards == {"denoiser": 1, "decoder": 1}
    assert trace.steps[0].correction == [0.0, 0.0]


def sampled(world, conditions, **options):
    run = world.run(conditions, **options)
    x = world.latent(batch=2)
    for sigma in SCHEDULE.sigmas[:-1]:
        x = run.predict(x, sigma, world.denoise)
    return run.finish(x)


def test_the_report_says_since_when_and_what_it_cost(world):
    """An energy that is lower from the third step on, whatever the picture."""

    class Falls:
        step = None

        def __init__(self, inner):
            self.inner = inner

        def begin_run(self):
            return Falls(self.inner)

        def begin_step(self, step):
            self.step = step

        def __call__(self, image, region=None):
            return self.inner(image) * (0.001 if self.step in (None, 2, 3) else 1.0)

    lines = []
    first, second = world.conditions(2)
    falls = Condition("falls", Falls(first.energy), satisfied_at=0.005)
    watch = Watch(looked=lambda record: lines.append(look_line(record, 4)))
    trace = sampled(world, (falls, second), watch=watch)
    report = trace.content()
    assert "falls satisfied from step 3 on" in report["words"]
    facts, other = report["conditions"]
    assert (facts["satisfied_at"], facts["satisfied_from"]) == (0.005, 2)
    assert facts["satisfied_looks"] == (4, 8)
    assert [other[name] for name in ("satisfied_at", "satisfied_looks")] == [None, None]
    assert [bool(step["satisfied"]) for step in report["steps"]] == [False, False, True, True]
    assert "(satisfied)" not in lines[1] and "(satisfied), target 1" in lines[2]
    assert not report["warnings"] and not report["notes"]
    taken = sum(sum(r.forwards.values()) for r in trace.steps if r.step > 1)
    assert taken == 2 * 2  # one condition alone, without look-aheads: model and decoder once
    model = sum(r.forwards["denoiser"] + r.backwards["denoiser"] for r in trace.steps)
    assert report["cost"]["denoiser"] == pytest.approx(model / 4)


def test_one_that_never_had_to_guide_is_warned_of(world):
    trace = sampled(world, satisfied(world.conditions(2), (ALWAYS, None)))
    (warning,) = trace.warnings
    assert warning.startswith("target 0 has no effect: it was satisfied at every look")
    assert "target 0 satisfied from step 1 on" in trace.words()


def test_one_that_is_satisfied_now_and_then_says_how_often(world):
    conditions, x = world.conditions(2), world.latent(batch=2)
    lowest = energies(world, conditions, world.denoise(x))[0].min().item()
    trace = sampled(world, satisfied(conditions, (lowest * 1.000001, None)))
    looks = trace.content()["conditions"][0]["satisfied_looks"]
    assert looks[1] == 8 and looks[0] > 0
    assert "target 0 satisfied" in trace.words()


def test_energies_that_are_no_numbers_satisfy_nothing(world):
    (condition,) = world.conditions(1)
    broken = Condition("broken", lambda image, region=None: condition.energy(image) * torch.nan)
    asked = satisfied((broken, condition), (ALWAYS, None))
    record = predict(world, asked, world.latent())[1].steps[0]
    assert record.satisfied == []


def test_strength_0_measures_and_calls_nothing_satisfied(world):
    trace = sampled(world, satisfied(world.conditions(1), (ALWAYS,)), strength=0.0)
    assert "satisfied" not in trace.words() and not trace.warnings


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="satisfied_at must be finite"):
        Condition("one", lambda image, region=None: image.mean((1, 2, 3)), satisfied_at=value)
