"""Which picture is the best by weighted energies, and which seed goes on."""

import math
import random

import pytest

from zmagic.guidance.candidates import chosen, early_steps, put_into, seeds_of
from zmagic.guidance.ranking import best_first, scores
from zmagic.guidance.trace import ConditionFacts, Trace


def test_the_scale_of_an_energy_does_not_matter_and_its_weight_does():
    text, points = [0.9, 0.7, 0.8, 0.85], [1e-4, 4e-4, 2e-4, 3e-4]
    equal = scores({"text": text, "points": points}, {"text": 1.0, "points": 1.0})
    scaled = {"text": [7.0 * e + 3.0 for e in text], "points": [1e6 * e for e in points]}
    assert scores(scaled, {"text": 2.0, "points": 2.0}) == pytest.approx(equal)
    assert sum(equal) == pytest.approx(0.0)
    for heavy, light, energies in (("text", "points", text), ("points", "text", points)):
        scored = scores({"text": text, "points": points}, {heavy: 1.0, light: 0.0})
        assert best_first(scored) == sorted(range(4), key=energies.__getitem__)


def test_a_score_is_in_standard_deviations():
    assert scores({"one": [1.0, 3.0]}, {"one": 0.5}) == [-1.0, 1.0]
    assert scores({"one": [1.0, 3.0], "two": [5.0, 5.0]}, {"one": 1.0, "two": 1.0}) == [-0.5, 0.5]


def test_a_picture_without_a_number_is_the_last_and_does_not_disturb_the_others():
    energies = {"one": [math.nan, 1.0, 3.0], "two": [0.0, 1.0, 2.0]}
    scored = scores(energies, {"one": 1.0, "two": 1.0})
    assert scored == [math.inf, -1.0, 1.0] and best_first(scored) == [1, 2, 0]
    assert scores({"one": [math.inf] * 2}, {"one": 1.0}) == [math.inf] * 2


def test_equal_pictures_stay_in_their_order():
    assert best_first(scores({"one": [2.0, 2.0, 2.0]}, {"one": 1.0})) == [0, 1, 2]


def test_seeds_are_the_own_one_and_others_that_a_counter_does_not_meet_again():
    assert seeds_of(7, 1) == [7]
    assert seeds_of(7, 4)[:3] == seeds_of(7, 3) and seeds_of(2**64 - 1, 2)[0] == 2**64 - 1
    met = [seed for first in range(50) for seed in seeds_of(first, 8)]
    assert len(set(met)) == len(met) and max(met) < 2**53  # as JavaScript holds them


@pytest.mark.parametrize(("steps", "early"), [(1, 1), (4, 1), (5, 2), (20, 5), (50, 13)])
def test_a_quarter_of_the_steps_is_made_and_one_at_least(steps, early):
    assert early_steps(steps) == early


def traces(**energies):
    """One early run for each candidate; energies are by condition, then candidate, then picture."""
    count = len(next(iter(energies.values())))
    facts = [ConditionFacts(name) for name in energies]
    return [
        Trace(
            {},
            final={name: each[k] for name, each in energies.items()},
            conditions=facts,
            cost={"denoiser": 2.0, "total": 3.0},
            predictions=5,
        )
        for k in range(count)
    ]


def test_a_batch_is_one_candidate():
    early = traces(one=[[1.0, 5.0], [2.0, 2.0], [4.0, 4.0]])
    place, candidates = chosen([10, 11, 12], early)
    assert place == 1 and [c.seed for c in candidates] == [10, 11, 12]
    assert candidates[0].energies == {"one": [1.0, 5.0]}
    assert candidates[1].score < candidates[0].score < candidates[2].score


def test_the_order_of_candidates_does_not_matter():
    generator = random.Random(3)
    energies = [[generator.random()] for _ in range(6)]
    others = [[generator.random()] for _ in range(6)]
    place, _ = chosen(list(range(6)), traces(one=energies, two=others))
    turned, _ = chosen(list(range(6)), traces(one=energies[::-1], two=others[::-1]))
    assert turned == 5 - place


def test_what_candidates_cost_is_added():
    early = traces(one=[[1.0], [2.0]])
    trace = Trace({}, cost={"denoiser": 3.0, "total": 4.0}, predictions=20, about={"seed": 11})
    put_into(trace, chosen([10, 11], early)[1], early)
    assert trace.cost == {"denoiser": 3.0, "candidates": 1.5, "total": 5.5}
    assert "the best of 2 candidates has seed 11" in trace.words()
    early[0].cost = {}  # not known of one: not known
    put_into(trace, chosen([10, 11], early)[1], early)
    assert trace.cost == {}


def test_without_energies_the_first_one_goes_on_and_a_warning_says_so():
    early = traces(one=[[1.0], [2.0]])
    early[1].final = {}
    place, candidates = chosen([10, 11], early)
    trace = Trace({})
    put_into(trace, candidates, early)
    assert place == 0 and "could not be compared" in trace.warnings[0]
