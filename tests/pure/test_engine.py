"""A guided step as a whole: costs, invariants of the batch, windows, rules, and robustness."""

import itertools
import json

import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.evaluation import NotDifferentiable
from zmagic.guidance.pictures.views import ViewOptions
from zmagic.guidance.progress import Watch, look_line
from zmagic.guidance.random_streams import RandomStreams
from zmagic.guidance.robust_views import robust
from zmagic.guidance.schedule import Schedule
from zmagic.guidance.settings import PRESETS, GuidanceSettings, preset
from zmagic.guidance.trace import StepRecord

SIGMA = 2.0
PATHS = ("full", "prediction", "image", "no_backprop", "image_no_backprop")


def predict(world, conditions, x, **settings):
    run = world.run(conditions, **settings)
    return run.predict(x, SIGMA, world.denoise), run.trace


def energies(world, conditions, prediction):
    image = world.decode(prediction)
    return torch.stack([c.energy(image) for c in conditions])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_evaluation_counts_are_those_of_the_method(world, path, n):
    record = predict(world, world.conditions(n), world.latent(), gradient_path=path)[1].steps[0]
    evaluations = (2 * n + 1, 3 * n) if n > 1 else (1, 1)
    forwards = {"full": evaluations[0]}.get(path, 1)
    backwards = {"full": evaluations[1]}.get(path, 0 if "no_backprop" in path else 1)
    assert record.forwards["denoiser"] == forwards
    assert record.backwards.get("denoiser", 0) == backwards
    decoder = (1, 1) if path.startswith("image") else evaluations
    assert (record.forwards["decoder"], record.backwards["decoder"]) == decoder


@pytest.mark.parametrize(
    ("settings", "forwards", "backwards"),
    [
        ({"tasks": "pairs"}, 1 + 3 + 6, 3 + 6 + 6),
        ({"dependence": "first_order"}, 1 + 3, 3 + 3),
        ({"dependence": "exact"}, 1 + 3, 3 + 3 + 2 * 3),
        ({"dependence": "off"}, 1, 3),
        ({"order": "as_connected"}, 1 + 2 + 2, 3 + 2 + 2),
        ({"order": "auto"}, 1 + 3 + 3, 3 + 3 + 3),
        ({"dependence": "mutual"}, 1 + 3, 3 + 3 * 2),
    ],
)
def test_evaluation_counts_of_the_alternatives(world, settings, forwards, backwards):
    run = predict(world, world.conditions(3), world.latent(), gradient_path="full", **settings)[1]
    assert run.steps[0].forwards["denoiser"] == forwards
    assert run.steps[0].backwards["denoiser"] == backwards


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("order", ["symmetric", "as_connected", "auto"])
@pytest.mark.parametrize("balance", ["cagrad", "sum", "pcgrad", "mgda"])
def test_every_image_of_a_batch_is_its_own_problem(world, path, order, balance):
    conditions, x = world.conditions(3), world.latent(batch=3)
    options = {"gradient_path": path, "order": order, "balance": balance}
    together = predict(world, conditions, x, **options)[0]
    alone = torch.cat([predict(world, conditions, x[b : b + 1], **options)[0] for b in range(3)])
    assert torch.allclose(together, alone, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("path", PATHS)
def test_the_order_of_the_conditions_does_not_matter_when_all_pairs_count(world, path):
    conditions, x = world.conditions(3), world.latent(batch=2)
    forward = predict(world, conditions, x, gradient_path=path)[0]
    backward = predict(world, conditions[::-1], x, gradient_path=path)[0]
    assert torch.allclose(forward, backward, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("path", PATHS)
def test_the_direction_lowers_every_energy(world, path):
    """The direction is in x where the denoiser was differentiated, else in the prediction."""
    conditions, x = world.conditions(2), world.latent(batch=3)
    corrected, trace = predict(
        world, conditions, x, gradient_path=path, look_ahead=1e-2, cagrad_c=0.9
    )
    before = energies(world, conditions, world.denoise(x))
    moved = 1e-3 * (corrected - world.denoise(x))
    prediction = world.denoise(x) + moved if "no_backprop" in path else world.denoise(x + moved)
    assert (energies(world, conditions, prediction) < before).all()
    assert torch.allclose(torch.tensor(trace.steps[0].energies), before.float(), rtol=1e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_the_residual_rule_moves_by_the_share_of_noise_it_promises(world, name):
    x = world.latent(batch=2)
    once = {"time_travel": 1, "guide_every": 1, "mean_share": 0.0, "mean_steps": 1}
    once["guided_share"] = 1.0
    settings = preset(name, strength=0.4, step_rule="residual", **once)
    run = world.run(world.conditions(3), **settings.__dict__)
    prediction = world.denoise(x)
    moved = run.predict(x, SIGMA, world.denoise) - prediction
    expected = 0.2 * (prediction - x).flatten(1).square().mean(1).sqrt()
    assert torch.allclose(moved.flatten(1).square().mean(1).sqrt(), expected)


@pytest.mark.parametrize("sigma", [0.1, SIGMA, 9.0])
def test_the_posterior_rule_moves_by_a_share_of_what_is_open(world, sigma):
    x = world.latent(batch=2)
    run = world.run(world.conditions(3), step_rule="posterior", strength=0.3)
    moved = run.predict(x, sigma, world.denoise) - world.denoise(x)
    expected = torch.full((2,), 0.3 * sigma / (1.0 + sigma**2) ** 0.5, dtype=torch.float64)
    assert torch.allclose(moved.flatten(1).square().mean(1).sqrt(), expected)


def test_classifier_rule_moves_by_the_score_of_the_conditions(world):
    x, (condition,) = world.latent(), world.conditions(1)
    moved = predict(
        world, [condition], x, gradient_path="full", step_rule="classifier", strength=1.0
    )[0] - world.denoise(x)
    assert torch.allclose(
        moved.flatten(1).square().mean(1).sqrt(), torch.tensor([SIGMA**2], dtype=torch.float64)
    )


def test_freedom_rule_uses_the_cfg_gap_and_falls_back_to_the_residual_without_one(world):
    x, conditions = world.latent(batch=2), world.conditions(2)
    gap = torch.randn_like(x)
    run = world.run(conditions, step_rule="freedom", strength=0.2)
    moved = run.predict(x, SIGMA, world.denoise, cfg_gap=lambda: gap) - world.denoise(x)
    expected = 0.2 * gap.flatten(1).square().mean(1).sqrt()
    assert torch.allclose(moved.flatten(1).square().mean(1).sqrt(), expected)
    # Through the model the look-aheads have gaps of their own; the one of x counts.
    gaps = [gap, *torch.randn(6, *gap.shape, dtype=gap.dtype)]
    run = world.run(conditions, gradient_path="full", step_rule="freedom", strength=0.2)
    moved = run.predict(x, SIGMA, world.denoise, cfg_gap=lambda: gaps.pop(0)) - world.denoise(x)
    assert torch.allclose(moved.flatten(1).square().mean(1).sqrt(), expected)
    without = world.run(conditions, step_rule="freedom").predict(
        x, SIGMA, world.denoise, cfg_gap=lambda: None
    )
    assert torch.equal(without, predict(world, conditions, x)[0])


def test_polyak_step_reaches_the_minimum_of_a_quadratic_bowl_and_never_leaps(world):
    target = world.latent(seed=21)[:, :3]
    bowl = Condition("bowl", lambda image, region=None: (image - target).square().flatten(1).sum(1))
    run = world.run([bowl], step_rule="polyak", gradient_path="no_backprop", strength=1.0)
    run.decode = lambda latent: latent[:, :3]
    x = torch.cat([target + 0.1, torch.zeros(1, 1, 4, 4, dtype=torch.float64)], 1)
    # Polyak's step on a squared distance goes exactly half way to its minimum.
    half_way = run.predict(x + 5.0, SIGMA, lambda _: x)[:, :3]
    assert torch.allclose(half_way, target + 0.05)
    short = run.predict(x + 1e-4, SIGMA, lambda _: x) - x
    assert float(short.square().mean().sqrt()) <= 1e-4 * (1 + 1e-6)


def test_windows_weights_and_regions_decide_which_conditions_guide(world):
    (target,) = world.conditions(1)
    energy = target.energy
    empty = torch.zeros(1, 8, 8)
    late = Condition("late", energy, start=0.9)  # sigma <= 1 in this world
    for off in (
        late,
        Condition("off", energy, weight=0.0),
        Condition("no width", energy, start=0.8, end=0.8),
        Condition("nowhere", energy, region=empty),
    ):
        assert not world.run([off]).guides(SIGMA)
    assert world.run([late]).guides(0.99)
    both = world.run([late, target])
    both.predict(world.latent(), SIGMA, world.denoise)
    assert both.trace.steps[0].conditions == ["target 0"]
    assert not world.run([target], strength=0.0).guides(SIGMA)


def test_where_nothing_guides_the_prediction_is_the_denoisers(world):
    x, (target,) = world.latent(), world.conditions(1)
    late = Condition("late", target.energy, start=0.9)
    for run, measured in (
        (world.run([late]), 0),
        (world.run([]), 0),
        (world.run([target], strength=0.0), 1),
    ):
        assert torch.equal(run.predict(x, SIGMA, world.denoise), world.denoise(x))
        assert len(run.trace.steps) == measured and run.trace.plain_forwards == 1


def test_the_first_step_lies_in_a_window_that_starts_with_the_sampling(world):
    """A schedule may begin a rounding above the noise level of its own start."""
    (condition,) = world.conditions(1, start=0.0, end=0.5)
    run = world.run([condition])
    assert run.guides(10.000001) and run.guides(4.9999999) and not run.guides(4.9)


def test_guide_every_counts_sampler_steps_not_evaluations(world):
    run = world.run(world.conditions(1), guide_every=2)  # sigmas 10, 5, 2, 1, 0
    assert [run.guides(sigma) for sigma in (10.0, 7.0, 5.0, 3.0, 2.0, 1.5, 1.0)] == [
        *(True, True),
        *(False, False),
        *(True, True),
        False,
    ]


def test_the_prediction_is_not_differentiated_when_another_node_detached_it(world, caplog):
    conditions, x = world.conditions(2), world.latent()
    calls = []

    def detached(z):
        calls.append(1)
        return world.denoise(z).detach()

    for path in ("full", "prediction", "image"):
        calls.clear()
        run = world.run(conditions, gradient_path=path)
        corrected = run.predict(x, SIGMA, detached)
        without = "image_no_backprop" if path == "image" else "no_backprop"
        expected = predict(world, conditions, x, gradient_path=without)[0]
        assert torch.allclose(corrected, expected)
        run.predict(x, SIGMA, detached)
        assert len(calls) == 2 and len(run.trace.warnings) == 1
        assert run.trace.steps[0].forwards["denoiser"] == 1
        assert run.trace.steps[0].path == without
    assert sum("carries no gradient" in r.message for r in caplog.records) == 3


def test_a_gradient_lost_at_a_look_ahead_falls_back_to_the_prediction_at_x(world):
    conditions, x = world.conditions(2), world.latent()
    calls = []

    def skipping(z):  # as caches do that reuse a prediction from the second call on
        calls.append(1)
        return world.denoise(z) if len(calls) == 1 else world.denoise(z).detach()

    corrected = world.run(conditions, gradient_path="full").predict(x, SIGMA, skipping)
    assert torch.allclose(corrected, predict(world, conditions, x, gradient_path="no_backprop")[0])


def test_a_decoder_without_gradient_is_an_error_not_a_silent_pass(world):
    run = world.run(world.conditions(1))
    decode = run.decode
    run.decode = lambda latent: decode(latent).detach()
    with pytest.raises(NotDifferentiable, match="decoder"):
        run.predict(world.latent(), SIGMA, world.denoise)


def test_nan_energies_leave_the_prediction_finite_and_are_reported(world):
    broken = Condition("broken", lambda image, region=None: image.flatten(1).sum(1) * torch.nan)
    x = world.latent()
    corrected, trace = predict(world, [broken], x)
    assert torch.equal(corrected, world.denoise(x))
    assert any("broken" in warning for warning in trace.warnings)
    assert json.loads(trace.to_json())["steps"][0]["energies"] == [[None]]
    assert torch.equal(predict(world, [broken, broken], x)[0], world.denoise(x))
    partly = predict(world, [*world.conditions(2), broken], x)[0]
    assert torch.allclose(partly, predict(world, world.conditions(2), x)[0])


def test_an_energy_must_return_one_value_per_image(world):
    wrong = Condition("wrong", lambda image, region=None: image.mean())
    with pytest.raises(ValueError, match=r"wrong.*one value per image, \[2\], got \[\]"):
        predict(world, [wrong], world.latent(batch=2))


def test_half_precision_denoisers_do_not_lose_small_energies(world):
    """A cotangent of 1e-9 underflows in float16; it is scaled before it enters the stage."""
    (condition,) = world.conditions(1)
    energy = condition.energy
    small = Condition("small", lambda image, region=None: 1e-9 * energy(image.double()).float())

    def half_denoise(x):
        return world.denoise(x.half().double()).half().float()

    x = world.latent().float()
    run = world.run([small], gradient_path="full")
    run.decode = lambda latent: world.decode(latent.double()).float()
    half = run.predict(x, SIGMA, half_denoise) - half_denoise(x)
    full = predict(world, [condition], x.double(), gradient_path="full")[0]
    full = (full - world.denoise(x.double())).float()
    assert torch.nn.functional.cosine_similarity(half.flatten(), full.flatten(), 0) > 0.99


def test_time_travel_repeats_inside_its_window_and_keeps_the_noise_level(world):
    conditions, x = world.conditions(2), world.latent()
    seen = []

    def denoise(z):
        seen.append(z.detach().clone())
        return world.denoise(z)

    options = {"time_travel": 3, "travel_start": 0.5, "travel_end": 1.0}
    world.run(conditions, **options).predict(x, SIGMA, denoise)  # percent 0.8
    assert len(seen) == 3
    assert not torch.equal(seen[1], x)
    noise = (seen[1] - world.run(conditions).predict(x, SIGMA, world.denoise)) / SIGMA
    assert 0.3 < float(noise.std()) < 1.7
    seen.clear()
    world.run(conditions, **options).predict(x, 8.0, denoise)  # percent 0.2
    assert len(seen) == 1


def test_a_run_guides_inside_its_window_only(world):
    conditions, x = world.conditions(2), world.latent()
    run = world.run(conditions, guide_start=0.3, guide_end=0.6)
    for sigma, guided in ((8.0, False), (7.0, True), (5.0, True), (4.0, True), (SIGMA, False)):
        assert run.guides(sigma) is guided
        assert torch.equal(run.predict(x, sigma, world.denoise), world.denoise(x)) is not guided
    assert not run.finish(x).warnings
    nowhere = world.run(conditions, guide_start=0.55, guide_end=0.6)
    nowhere.predict(x, 5.0, world.denoise)
    assert nowhere.finish(x).warnings == [
        "nothing was guided: the window from guide_start 0.55 to guide_end 0.6 holds no step of "
        "this run"
    ]


def test_time_travel_without_fresh_noise_carries_the_correction_over(world):
    conditions, x = world.conditions(2), world.latent()
    seen = []

    def denoise(z):
        seen.append(z.detach().clone())
        return world.denoise(z)

    run = world.run(conditions, time_travel=2, fresh_noise=0.0, gradient_path="prediction")
    run.predict(x, SIGMA, denoise)
    once = world.run(conditions, gradient_path="prediction").predict(x, SIGMA, world.denoise)
    assert torch.allclose(seen[1] - x, once - world.denoise(x))
    seen.clear()
    run = world.run(conditions, time_travel=2, fresh_noise=0.5, gradient_path="prediction")
    run.predict(x, SIGMA, denoise)
    unchanged = (seen[1] - x - (once - world.denoise(x))) / SIGMA
    assert 0.1 < float(unchanged.std()) < 2.0  # some of the noise is new


@pytest.mark.parametrize("options", [{"time_travel": 3}, {"random_shift": 2}])
def test_random_options_give_a_picture_of_a_batch_what_it_has_alone(world, options):
    """Whatever came before, and in whatever company; only the index in the batch counts."""
    conditions, x = world.conditions(2), world.latent(batch=3)
    run = world.run(conditions, **options)
    run.predict(x, 5.0, world.denoise)
    together = run.predict(x, SIGMA, world.denoise)
    alone = world.run(conditions, streams=RandomStreams(0, [2]), **options)
    assert torch.allclose(alone.predict(x[2:], SIGMA, world.denoise), together[2:])
    other = world.run(conditions, streams=RandomStreams(1, [2]), **options)
    assert not torch.allclose(other.predict(x[2:], SIGMA, world.denoise), together[2:])


def test_a_denoiser_that_fails_with_gradients_is_guided_without_them(world, caplog):
    conditions, x = world.conditions(2), world.latent()

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return z.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("modified by an\n inplace operation")

    expected = predict(world, conditions, x, gradient_path="no_backprop")[0]
    calls = []

    def denoise(z):
        calls.append(1)
        return world.denoise(Fails.apply(z))

    for path in ("full", "prediction"):
        calls.clear()
        run = world.run(conditions, gradient_path=path)
        assert torch.allclose(run.predict(x, SIGMA, denoise), expected)
        run.predict(x, 1.0, denoise)
        (warning,) = run.trace.warnings
        assert "RuntimeError: modified by an inplace operation" in warning
        assert len(calls) == 2  # the prediction that was made is not made again
        assert [record.path for record in run.trace.steps] == ["no_backprop"] * 2


def test_an_interruption_is_no_failure_with_gradients(world):
    class Interrupted(Exception):
        """Stands for the interruption of older hosts, which derive theirs from Exception."""

    def denoise(z):
        raise Interrupted

    with pytest.raises(Interrupted):
        world.run(world.conditions(1)).predict(world.latent(), SIGMA, denoise)


@pytest.mark.parametrize("options", [{"time_travel": 2}, {"random_shift": 2}, {"momentum": 0.5}])
def test_every_random_or_stateful_option_repeats_exactly_with_the_same_seed(world, options):
    conditions, x = world.conditions(2), world.latent()
    results = []
    for _ in range(2):
        run = world.run(conditions, **options)
        run.predict(x, SIGMA, world.denoise)
        results.append(run.predict(x, 1.0, world.denoise))
    assert torch.equal(*results)
    plain = world.run(conditions)
    plain.predict(x, SIGMA, world.denoise)
    assert not torch.equal(plain.predict(x, 1.0, world.denoise), results[0])


def test_flow_models_start_without_dividing_by_zero(world):
    run = world.run(world.conditions(2))
    run.schedule = Schedule.flow([1.0, 0.5, 0.0])
    assert torch.isfinite(run.predict(world.latent(), 1.0, world.denoise)).all()


def test_region_restricts_the_energy_and_must_fit_the_batch(world):
    (target,) = world.conditions(1)
    region = torch.zeros(2, 8, 8)
    region[0] = 1.0
    half = Condition("half", target.energy, region=region)
    x = world.latent(batch=2)
    corrected = predict(world, [half], x)[0]
    prediction = world.denoise(x)
    assert not torch.equal(corrected[0], prediction[0])
    assert torch.equal(corrected[1], prediction[1])
    with pytest.raises(ValueError, match="half: region has 2 masks"):
        predict(world, [half], world.latent(batch=3))


def test_the_trace_tells_energies_cosines_weights_and_totals(world):
    conditions = world.conditions(3)
    run = world.run(conditions, gradient_path="full")
    corrected = run.predict(world.latent(batch=2), SIGMA, world.denoise)
    run.measure(corrected, 1.0)
    report = json.loads(run.finish(corrected).to_json())
    guided, measured = report["steps"]
    assert torch.tensor(guided["cosines"]).shape == (2, 3, 3)
    assert torch.tensor(guided["balance"]).shape == (2, 3)
    assert measured["path"] == "measure" and measured["step"] == 3
    assert report["totals"]["forwards"] == {"denoiser": 7, "decoder": 8}
    assert set(report["final"]) == {c.name for c in conditions}
    assert "7 denoiser forwards, 9 backwards" in run.trace.summary()


@pytest.mark.parametrize("dependence", ["off", "mutual"])
def test_cosines_of_the_tasks_are_told_where_each_condition_has_one(world, dependence):
    def told(**settings):
        run = world.run(world.conditions(3), dependence=dependence, **settings)
        run.predict(world.latent(batch=2), SIGMA, world.denoise)
        (record,) = run.trace.steps
        return record

    record = told()
    before, after = torch.tensor(record.cosines), torch.tensor(record.task_cosines)
    assert before.shape == after.shape == (2, 3, 3)
    pairs = torch.triu_indices(3, 3, 1)
    change = (after - before)[:, pairs[0], pairs[1]]
    # Each task holds the gradients of the others, too: they agree more than the gradients did.
    assert change.abs().max() < 1e-5 if dependence == "off" else change.min() > 0.05
    if dependence != "off":
        assert told(tasks="pairs").task_cosines == []


def test_an_interruption_between_two_pieces_of_work_ends_the_evaluation(world):
    class Cancel(BaseException):
        pass

    asked = []

    def working(done):
        asked.append(done)
        if len(asked) == stop:
            raise Cancel

    def run():
        asked.clear()
        guided = world.run(world.conditions(2), watch=Watch(working))
        return guided.predict(world.latent(), SIGMA, world.denoise)

    stop = 0
    expected = run()
    pieces = len(asked)
    assert pieces > 10
    for stop in range(1, pieces + 1):
        with pytest.raises(Cancel):
            run()
        assert len(asked) == stop
    stop = 0
    assert torch.equal(run(), expected)


def test_progress_goes_up_evenly_and_ends_at_the_next_step(world):
    asked, lines = [], []
    watch = Watch(asked.append, lambda record: lines.append(look_line(record, 4)))
    run = world.run(world.conditions(2), watch=watch, time_travel=2)
    for step, sigma in enumerate(run.schedule.sigmas[:2]):
        run.predict(world.latent(), sigma, world.denoise)
        assert asked == sorted(asked) and asked[-1] == step + 1
    second = [done for done in asked if 1.0 <= done < 2.0]
    assert max(after - before for before, after in itertools.pairwise(second)) < 0.2
    energy = sum(run.trace.steps[0].energies[0])
    assert lines[0].startswith(f"step 1/4: target 0 {energy:.3g}, target 1 ")
    assert [line[:8] for line in lines] == ["step 1/4"] * 2 + ["step 2/4"] * 2


def test_a_look_at_the_end_of_the_last_step_belongs_to_it():
    last = StepRecord(3, 1.0, ["one"], [[0.5]])
    assert look_line(last, 3) == "step 3/3: one 0.5"


def test_an_energy_that_follows_the_run_hears_of_every_step_in_its_own_copy(world):
    class Following:
        """Counts its evaluations since the step began, and remembers both."""

        def __init__(self, inner):
            self.inner, self.heard = inner, []

        def begin_run(self):
            return Following(self.inner)

        def begin_step(self, step):
            self.heard.append([step, 0])

        def __call__(self, image, region=None):
            self.heard[-1][1] += 1
            return self.inner(image, region)

    x, (first, second) = world.latent(), world.conditions(2)
    energy = Following(first.energy)
    run = world.run([Condition("following", energy), second], gradient_path="full")
    run.predict(x, 10.0, world.denoise)
    run.measure(run.predict(x, 1.0, world.denoise), 1.0)
    run.finish(x)
    # At x, at the other's look-ahead, and at its own second point; then once for each measurement.
    assert run.conditions[0].energy.heard == [[0, 3], [3, 3], [3, 1], [None, 1]]
    assert energy.heard == []


def test_conditions_of_the_same_name_stay_apart_in_the_report(world):
    (target,) = world.conditions(1)
    run = world.run([target, target])
    assert [c.name for c in run.conditions] == ["target 0", "target 0 2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_path": "sideways"}, "gradient_path must be one of full, prediction"),
        ({"strength": -1.0}, "strength must lie in"),
        ({"strength": float("nan")}, "strength must lie in"),
        ({"guide_every": 0}, "guide_every must lie in"),
        ({"travel_start": 0.8, "travel_end": 0.2}, "travel_start 0.8 must not exceed"),
        ({"guide_start": 0.8, "guide_end": 0.2}, "guide_start 0.8 must not exceed"),
    ],
)
def test_settings_say_what_was_expected_and_what_came(options, message):
    with pytest.raises(ValueError, match=message):
        GuidanceSettings(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight must be a number >= 0"),
        ({"start": 0.7, "end": 0.3}, "0 <= start <= end <= 1"),
        ({"region": torch.zeros(4, 4)}, "region must be a mask"),
    ],
)
def test_conditions_say_what_was_expected_and_what_came(options, message):
    with pytest.raises(ValueError, match=message):
        Condition("name", lambda image, region=None: image.mean((1, 2, 3)), **options)


def test_settings_that_change_nothing_are_named(world):
    run = world.run(world.conditions(1), balance="sum", cagrad_c=0.9, travel_end=0.5)
    notes = run.finish(world.latent()).notes
    assert "cagrad_c has no effect: balance is sum" in notes
    assert "travel_end has no effect: time_travel is 1" in notes
    assert preset("fast", dependence="off", order="auto").without_effect == [
        "order has no effect: dependence is off"
    ]
    assert not any(settings.without_effect for settings in PRESETS.values())


def test_without_a_choice_settings_are_the_default_preset():
    assert GuidanceSettings() == preset("balanced") == next(iter(PRESETS.values()))


def test_unknown_presets_and_fields_are_refused():
    with pytest.raises(ValueError, match="preset must be one of balanced"):
        preset("turbo")
    with pytest.raises(ValueError, match="unknown settings: color"):
        preset("fast", color=1)


@pytest.mark.parametrize("path", PATHS)
def test_views_are_fixed_in_a_step_and_counted(world, path):
    """Exact curvature and differences agree only if a step's views stay; each picture has its."""
    options = ViewOptions(2, noise=0.05, shift=0.2)
    conditions = [robust(c, options)[0] for c in world.conditions(2)]
    x = world.latent(batch=2)

    def guided(of, **settings):
        run = world.run(of, streams=RandomStreams(3), gradient_path=path, **settings)
        return run.predict(x, SIGMA, world.denoise), run.trace

    exact, _ = guided(conditions, dependence="exact", look_ahead=1e-3)
    differences, trace = guided(conditions, dependence="finite_difference", look_ahead=1e-3)
    plain, seen = guided(world.conditions(2), dependence="finite_difference", look_ahead=1e-3)
    moved = (exact - world.denoise(x)).norm()
    assert (exact - differences).norm() < 1e-4 * moved < (exact - plain).norm()
    assert trace.steps[0].energy_calls == 2 * seen.steps[0].energy_calls
    run = world.run(conditions, streams=RandomStreams(3), gradient_path=path, look_ahead=1e-3)
    alone = run.predict(x[:1], SIGMA, world.denoise)
    assert torch.allclose(alone, differences[:1], rtol=1e-8, atol=1e-10)
