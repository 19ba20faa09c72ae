"""What a report says of a run in numbers and in a sentence."""

import json

import pytest

from zmagic.guidance.outcome import in_words, outcomes
from zmagic.guidance.trace import ConditionFacts, StepRecord, Trace


def trace(**fields) -> Trace:
    """A run of two steps: a condition that knows its goal, one that does not."""
    steps = [
        StepRecord(0, 9.0, ["Face Identity", "Text"], [[0.8, 1.0], [1.0, 1.0]]),
        StepRecord(1, 1.0, ["Text"], [[0.7, 0.9]]),
    ]
    facts = [ConditionFacts("Face Identity", goal=0.0, face_looks=(3, 4)), ConditionFacts("Text")]
    final = {"Face Identity": [0.2, 0.4], "Text": [0.5, 0.7]}
    return Trace(**{"settings": {}, "steps": steps, "final": final, "conditions": facts} | fields)


def test_the_way_to_the_goal_where_it_is_known_else_the_fall_of_the_energy():
    report = trace().content()
    identity, text = outcomes(report)
    assert (identity.start, identity.end) == (0.9, pytest.approx(0.3))
    assert identity.towards_goal == pytest.approx(2 / 3)
    assert text.towards_goal is None and text.fall == pytest.approx(0.4)
    assert report["words"] == (
        "Face Identity +67 % towards the goal; energy of Text 40 % lower; "
        "face found in 3 of 4 looks"
    )
    assert [each["fall"] for each in report["conditions"]] == [0.666667, 0.4]


def test_what_got_worse_is_said_and_so_are_warnings():
    final = {"Face Identity": [1.8, 1.8], "Text": [1.5, 1.5]}
    words = trace(final=final, warnings=["a", "b"]).words()
    assert words.startswith("Face Identity -100 % towards the goal; energy of Text 50 % higher; ")
    assert words.endswith("; 2 warnings")


def test_the_unguided_picture_is_what_the_guided_one_is_held_against():
    unguided = {"Face Identity": [0.6, 0.6], "Text": [0.5, 0.5]}
    words = trace(unguided=unguided).words()
    assert "; against unguided: energy of Face Identity 50 % lower, Text 20 % higher;" in words


def test_a_run_without_guidance_or_without_an_end_says_so():
    assert trace(settings={"strength": 0.0}).words().startswith("not guided; ")
    assert trace(final={}).words() == "no finished picture to measure; face found in 3 of 4 looks"


def test_numbers_that_are_not_finite_are_left_out():
    final = {"Face Identity": [float("nan"), 0.3], "Text": [float("nan")] * 2}
    report = json.loads(trace(final=final).to_json())
    assert report["conditions"][1]["end"] is None
    assert in_words(report).startswith("Face Identity +70 % towards the goal; face")


def test_an_unguided_batch_without_what_the_guided_one_shows_leaves_the_way_of_that():
    """The face is in one picture with guidance, and in another without."""
    nan = float("nan")
    final, unguided = ({"Face Identity": each} for each in ([0.2, nan], [nan, 0.6]))
    report = trace(final=final, unguided=unguided).content()
    facts = report["conditions"][0]
    assert (facts["start"], facts["end"], facts["unguided"]) == (0.8, 0.2, None)
    assert report["words"].startswith("Face Identity +75 % towards the goal; ")
    assert "against" not in report["words"]


def test_a_condition_that_starts_at_its_goal_has_no_way_to_go():
    steps = [StepRecord(0, 1.0, ["Face Identity"], [[0.0]])]
    words = trace(steps=steps, final={"Face Identity": [0.1]}).words()
    assert "towards" not in words


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        (-0.2, -0.5, "energy of Face Identity from -0.2 to -0.5"),  # of a pack's own
        (0.0, 0.1, "energy of Face Identity from 0 to 0.1"),
        (1e-7, 0.05, "energy of Face Identity from 1e-07 to 0.05"),
        (0.1, 0.2, "Face Identity -100 % towards the goal"),
    ],
)
def test_where_a_part_says_nothing_both_energies_are_told(start, end, words):
    steps = [StepRecord(0, 1.0, ["Face Identity"], [[start]])]
    assert trace(steps=steps, final={"Face Identity": [end]}).words().split("; ")[0] == words


def test_means_are_over_the_pictures_that_have_a_number_in_each():
    nan = float("nan")
    steps = [StepRecord(0, 1.0, ["Text"], [[0.2, 1.0, nan]])]
    run = trace(steps=steps, final={"Text": [nan, 1.0, 0.1]}, unguided={"Text": [nan] * 3})
    text = outcomes(run.content())[-1]
    assert (text.start, text.end, text.unguided) == (1.0, 1.0, None)


def test_conditions_of_no_weight_have_nothing_to_measure():
    facts = [ConditionFacts("Text", weight=0.0)]
    words = trace(steps=[], final={}, conditions=facts).words()
    assert words == "the weight of all conditions is 0"
