"""The picture of one run: what is drawn, and that it can be read."""

import locale
import sys

import matplotlib
import pytest
import torch

from zmagic.guidance.contact_sheet import sentence
from zmagic.guidance.plots import COLORS, MISSING
from zmagic.guidance.run_figure import AFTER, ALARM, BEFORE, HEIGHT, INK, PAPER, WIDTH, run_figure
from zmagic.guidance.trace import ConditionFacts, StepRecord, Trace

from .test_plots import inks


def report(count: int = 2, **fields) -> Trace:
    """Return a run of some conditions over four steps, with another agreement after dependence."""
    names = [f"condition {k}" for k in range(count)]
    matrices = [
        [[[1.0 if i == j else cosine for j in range(count)] for i in range(count)]]
        for cosine in (-0.25, 0.5)
    ]
    steps = [
        StepRecord(
            k,
            1.0,
            names,
            [[1.0 - k / 9] for _ in names],
            *(matrices if count > 1 else ()),
            correction=[0.3 - k / 20],
        )
        for k in range(4)
    ]
    facts = [ConditionFacts(name, goal=0.0) for name in names]
    final = {name: [0.4] for name in names}
    return Trace(**{"settings": {}, "steps": steps, "final": final, "conditions": facts} | fields)


def figure(run: Trace) -> torch.Tensor:
    drawn = run_figure(run.content())
    assert drawn.shape == (1, HEIGHT, WIDTH, 3)
    return drawn


def luminance(color: str) -> float:
    """Relative luminance as in WCAG 2."""
    parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_four_plots_and_a_sentence():
    drawn = figure(report())
    for color in (COLORS[0], COLORS[1], INK):
        assert inks(drawn, color) > 100
    upper, lower = drawn[:, : HEIGHT // 2], drawn[:, HEIGHT // 2 : -HEIGHT // 5]
    for part in (upper, lower):
        for side in (part[:, :, : WIDTH // 2], part[:, :, WIDTH // 2 :]):
            assert inks(side, INK) > 100
    assert inks(lower[:, :, : WIDTH // 2], BEFORE) > 100
    assert inks(lower[:, :, : WIDTH // 2], AFTER) > 100
    assert inks(drawn[:, -HEIGHT // 5 :], INK) > 50
    assert inks(drawn, ALARM) == 0


def test_warnings_are_in_the_picture():
    said = figure(report(warnings=["something is wrong, " * 20, "and more"]))
    assert inks(said[:, -HEIGHT // 4 :], ALARM) > 200
    assert inks(said[:, : -HEIGHT // 4], ALARM) == 0


def test_a_finished_picture_without_an_energy_is_not_told_to_be_unfinished():
    """Such as of a face that is not in it."""
    unseen = figure(report(1, final={"condition 0": [float("nan")]}))
    unfinished = figure(report(1, final={}))
    plots = slice(0, -HEIGHT // 4)
    assert inks(unseen[:, plots, : WIDTH // 2], INK) > 100
    assert not torch.equal(unseen[:, plots, : WIDTH // 2], unfinished[:, plots, : WIDTH // 2])


def test_the_unguided_picture_is_marked():
    beside = figure(report(unguided={"condition 0": [0.9], "condition 1": [0.9]}))
    assert (beside - figure(report())).abs()[:, : HEIGHT // 2, : WIDTH // 2].max() > 0.5


@pytest.mark.parametrize("count", [0, 1, 40])
def test_any_number_of_conditions(count):
    figure(report(count))


@pytest.mark.parametrize(
    "fields", [{"final": {}}, {"steps": []}, {"final": {"condition 0": [float("nan")]}}]
)
def test_what_is_not_known_leaves_its_place_empty(fields):
    figure(report(**fields))


def test_a_bar_has_the_color_of_its_line_whatever_stands_before_it():
    steps = [StepRecord(k, 1.0, ["debt", "distance"], [[-1.0], [1.0 - k / 9]]) for k in range(4)]
    drawn = figure(report(steps=steps, final={"debt": [-2.0], "distance": [0.4]}, conditions=[]))
    upper = drawn[:, : HEIGHT // 2]
    for side in (upper[:, :, : WIDTH // 2], upper[:, :, WIDTH // 2 :]):
        # That of an energy below 0 is a part of nothing.
        assert inks(side, COLORS[0]) == 0 and inks(side, COLORS[1]) > 50


def test_ink_and_paper_are_far_enough_apart_on_any_theme():
    """The picture is opaque; letters have the contrast that WCAG asks of them, 7 to 1, and
    lines and bars 3 to 1, in the colors of the conditions that most runs have."""

    def contrast(color: str) -> float:
        return (luminance(PAPER) + 0.05) / (luminance(color) + 0.05)

    assert contrast(INK) > 7.0 and contrast(ALARM) > 7.0 - 0.5
    assert all(contrast(color) > 2.8 for color in COLORS[:4])
    corner = figure(report())[0, 0, 0]
    assert corner.min() > 0.95


def test_points_in_numbers_whatever_the_language_of_the_system(monkeypatch):
    expected = figure(report())

    def german(form, value, grouping=False, monetary=False):
        return (form % value).replace(".", ",")

    monkeypatch.setitem(matplotlib.rcParams, "axes.formatter.use_locale", True)
    for name in ("format_string", "format"):
        monkeypatch.setattr(locale, name, german, raising=False)
    assert torch.equal(figure(report()), expected)


def test_without_matplotlib_a_sentence_stands_in_its_place(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    assert torch.equal(figure(report()), sentence(MISSING, WIDTH, HEIGHT))
