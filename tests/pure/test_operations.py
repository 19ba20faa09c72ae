"""What a run says that it costs, against counts by hand and by torch."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.flop_counter import FlopCounterMode

from zmagic.guidance import operations
from zmagic.guidance.conditions import Condition
from zmagic.guidance.faces.detections import Detection
from zmagic.guidance.faces.face_energy import FaceEnergy
from zmagic.guidance.faces.location import FaceLocator
from zmagic.guidance.live_regions import LiveRegion
from zmagic.guidance.operations import NETWORKS, OperationCounter
from zmagic.guidance.pictures.views import ViewOptions
from zmagic.guidance.robust_views import robust

from .conftest import SCHEDULE


def sampled(world, run):
    x = world.latent(batch=2)
    for sigma in SCHEDULE.sigmas[:-1]:
        x = run.predict(x, sigma, world.denoise)
    return run.finish(x)


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_path": "full", "dependence": "mutual"},
        {"gradient_path": "image_no_backprop"},
        {"gradient_path": "prediction", "time_travel": 3, "travel_end": 0.6, "guide_every": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("check_slope", [False, True])
def test_the_models_share_is_its_forwards_and_backwards(world, settings, check_slope):
    """Constant weights: a backward to the input takes what the forward takes."""
    run = world.run(world.conditions(3), check_slope=check_slope, **settings)
    trace = sampled(world, run)
    totals, steps = trace.totals(), len(SCHEDULE.sigmas) - 1
    taken = totals["backwards"].get("denoiser", 0) + totals["plain_denoiser_forwards"]
    taken += totals["forwards"]["denoiser"] + totals["forwards"].get("denoiser check", 0)
    assert trace.cost["denoiser"] == pytest.approx(taken / steps)
    # The decoder of this world: convolutions 4 to 8 to 3 channels, the model's 4 to 8 to 4.
    decoded = sum(
        record.forwards["decoder"] + record.backwards["decoder"] for record in trace.steps
    )
    share = (4 * 8 + 8 * 3) / (4 * 8 + 8 * 4)
    assert trace.cost["decoder"] == pytest.approx(share * decoded / steps, rel=1e-4)
    parts = (trace.cost.get(part, 0.0) for part in ("denoiser", "decoder", NETWORKS))
    assert trace.cost["total"] == pytest.approx(sum(parts))
    assert f"{trace.cost['total']:.3g} times plain sampling" in trace.summary()


def test_each_view_of_robust_views_is_counted(world):
    kernel = torch.randn(4, 3, 3, 3, dtype=torch.float64)

    def energy(image, region=None):
        return nn.functional.conv2d(image, kernel).square().flatten(1).mean(1)

    def networks(count):
        condition, _ = robust(Condition("one", energy), ViewOptions(count, shift=0.2))
        return sampled(world, world.run([condition])).cost[NETWORKS]

    one, two, three = map(networks, (1, 2, 3))
    # The products of the balance are among them, once.
    assert three - two == pytest.approx(two - one, rel=1e-4) and two > 1.9 * one


def test_counting_changes_no_bit_and_can_be_left_out(world):
    counted, uncounted = world.run(world.conditions(3)), world.run(world.conditions(3))
    uncounted._cost._counted = False
    x = world.latent()
    assert torch.equal(
        counted.predict(x, 10.0, world.denoise), uncounted.predict(x, 10.0, world.denoise)
    )
    assert not uncounted.finish(x).cost


@pytest.mark.parametrize("inference", [False, True])
def test_counts_are_those_of_torch_in_every_mode(inference):
    """Torch's attention by the formula, which its counter counts as products of matrices."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.formula = False
            self.conv, self.linear = nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.Linear(8, 12)

        def forward(self, x):
            tokens = self.linear(self.conv(x).flatten(2).transpose(1, 2))
            q, k, v = (t.unflatten(2, (2, 2)).transpose(1, 2) for t in tokens.chunk(3, -1))
            with sdpa_kernel(SDPBackend.MATH if self.formula else SDPBackend.FLASH_ATTENTION):
                out = nn.functional.scaled_dot_product_attention(q, k, v)
            return torch.matmul(out, out.transpose(-1, -2))

    net, x = Net(), torch.randn(2, 3, 4, 4)
    with torch.inference_mode(inference):
        net.formula = True
        with FlopCounterMode(display=False) as expected:
            net(x)
        net.formula = False
        plain = net(x)
        with OperationCounter() as counter, counter.part("net", "forward"):
            assert torch.equal(net(x), plain)
    assert counter.totals == {("net", "forward"): expected.get_total_flops()}


def test_what_cannot_be_counted_costs_the_figure_and_nothing_else(world, monkeypatch):
    expected = sampled(world, world.run(world.conditions(2)))
    assert expected.cost

    def broken(*args, **kwargs):
        raise AssertionError("unknown shapes")

    monkeypatch.setitem(operations.flop_registry, torch.ops.aten.convolution, broken)
    trace = sampled(world, world.run(world.conditions(2)))
    assert trace.final == expected.final and not trace.warnings and not trace.cost
    x = torch.randn(3, 3)
    with torch.inference_mode(), OperationCounter() as counter:
        torch.matmul(x, x, out=torch.empty(3, 3))
    assert counter.is_whole and counter.totals.total() == 2 * 27


class Changes:
    """The energy of ``inner``; it is as good as 0 in the steps ``low``, in all pictures."""

    def __init__(self, inner, low):
        self.inner, self.low, self.step, self.counted = inner, low, None, []

    def begin_run(self):
        return self

    def begin_step(self, step):
        self.step = step

    def __call__(self, image, region=None):
        counting = isinstance(_get_current_dispatch_mode(), OperationCounter)
        self.counted.append((self.step, counting))
        kernel = torch.ones(4, 3, 3, 3, dtype=torch.float64)
        more = nn.functional.conv2d(image, kernel).square().flatten(1).mean(1)
        return (self.inner(image) + more) * (1e-9 if self.step in self.low else 1.0)


def changing(world, *low):
    """Conditions of which each is satisfied in some steps, and one that never is."""
    first, *others = world.conditions(len(low) + 1)
    asked = [
        replace(each, energy=Changes(each.energy, steps), satisfied_at=1e-6)
        for each, steps in zip(others, low, strict=True)
    ]
    return [replace(first, energy=Changes(first.energy, ())), *asked]


SETTINGS = [
    {"gradient_path": "full", "dependence": "finite_difference"},
    {"gradient_path": "image", "dependence": "mutual", "time_travel": 2},
    {"gradient_path": "image", "step_rule": "posterior", "mean_share": 0.5, "mean_steps": 3},
    {"gradient_path": "image_no_backprop", "mean_steps": 2, "guide_every": 2},
    {"gradient_path": "prediction", "calibrate": True, "step_rule": "posterior"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("low", [((1, 2),), ((0,), (0, 2))], ids=str)
def test_the_cost_is_that_of_all_that_ran_whatever_was_satisfied(world, settings, low):
    assert_whole(world, world.run(changing(world, *low), **settings))


def test_the_cost_is_that_of_all_that_ran_where_nothing_pulls_yet(world):
    conditions = changing(world, (0,), (0,))[1:]
    run = world.run(conditions, gradient_path="image", calibrate=True, step_rule="posterior")
    assert_whole(world, run)
    assert run.trace.calibration.step == 1


class Sought:
    """Finds the whole picture by a convolution; not in the first two looks at picture ``late``."""

    sought = "all of it"

    def __init__(self, late=None):
        self.late, self.looks = late, 0

    def __call__(self, image):
        self.looks += 1
        kernel = torch.ones(16, 3, 3, 3, dtype=torch.float64)
        seen = nn.functional.conv2d(image, kernel).isfinite().all() * torch.ones_like(image[:, 0])
        if self.late is not None and self.looks < 3:
            seen[-1] = 0.0
        return seen


@pytest.mark.parametrize("late", [None, 1])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("path", ["image", "image_no_backprop"])
def test_a_look_for_a_region_is_counted_when_it_is_made(world, path, every, late):
    """Not in every step: at all pictures every few steps, else at those without it."""
    first, second = world.conditions(2)
    shared = LiveRegion(Sought(late), every)
    conditions = [replace(each, region=shared) for each in (first, second)]
    assert_whole(world, world.run(conditions, gradient_path=path))


def test_a_look_for_a_face_is_counted_when_it_is_made(world):
    def detect(picture):
        kernel = torch.ones(16, 3, 3, 3)
        nn.functional.conv2d(picture[None].float(), kernel)
        return [Detection(torch.tensor([0.1, 0.1, 0.6, 0.6]))]

    class Face(FaceEnergy):
        def of_faces(self, image, region, faces, cut):
            return world.conditions(1)[0].energy(image)

    locator = FaceLocator(detect, every=3)
    assert_whole(world, world.run([Condition("face", Face(locator, None))], gradient_path="image"))


def assert_whole(world, run):
    """What a run tells that it cost is what a counter around all of it counts."""
    x = world.latent(batch=2)
    with OperationCounter() as plain:
        world.denoise(x)
    with OperationCounter() as everything:
        for sigma in SCHEDULE.sigmas[:-1]:
            run.predict(x, sigma, world.denoise)
    steps = len(SCHEDULE.sigmas) - 1
    expected = everything.totals.total() / (steps * plain.totals.total())
    assert run.finish(x).cost["total"] == pytest.approx(expected, rel=1e-4)


def test_only_what_was_not_counted_yet_runs_under_the_counter(world):
    conditions = changing(world, (1, 2), ())
    run, x = world.run(conditions, gradient_path="image"), world.latent(batch=2)
    for sigma in SCHEDULE.sigmas[:-1]:
        run.predict(x, sigma, world.denoise)
    # At the second step only the tasks of what is left are new: one look-ahead each.
    for condition, new in zip(conditions, ({0, 1}, {0}, {0, 1}), strict=True):
        seen = condition.energy.counted
        assert {step for step, counting in seen if counting} == new
        assert not seen[-1][1]
