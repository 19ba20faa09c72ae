"""Pictures of runs: what is on a sheet, and the figures of a comparison."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from zmagic.guidance.contact_sheet import contact_sheet, sentence
from zmagic.guidance.plots import COLORS, HEIGHT, MISSING, WIDTH, Panel, picture_of, run_curves
from zmagic.guidance.reports import cosine_lines, mean_cosines
from zmagic.guidance.trace import StepRecord, Trace

RED, GREEN, BLUE = torch.eye(3)


def plain(color: torch.Tensor, count: int = 1, side: int = 128) -> torch.Tensor:
    """Images ``[count, side, side, 3]`` of one color."""
    return color.expand(count, side, side, 3).clone()


def report(cosine: float, batch: int = 2, steps: int = 3) -> dict:
    """Return the report of a run of two conditions whose gradients always have this cosine."""
    matrix = [[1.0, cosine], [cosine, 1.0]]
    records = [
        StepRecord(k, 1.0, ["A", "B"], [[0.5] * batch, [1.0 - k / 9] * batch], [matrix] * batch)
        for k in range(steps)
    ]
    trace = Trace({}, records, {"A": [0.5] * batch, "B": [0.1] * batch})
    return {"steps": [vars(record) for record in trace.steps], "final": trace.final}


def where(sheet: torch.Tensor, color: torch.Tensor) -> tuple[list, list]:
    """Columns and rows between which a sheet ``[1, H, W, 3]`` has a color: first and last."""
    there = ((sheet[0] - color).abs().amax(-1) < 0.02).nonzero()
    return [value.tolist() for value in (there.amin(0).flip(0), there.amax(0).flip(0))]


def test_a_sheet_has_a_column_for_each_run():
    sheet = contact_sheet([("one", plain(RED, 2)), ("two", plain(BLUE))])
    assert sheet.shape == (1, 26 + 2 * 256, 2 * 256, 3)
    assert where(sheet, RED) == [[0, 26], [255, 26 + 511]]
    assert where(sheet, BLUE) == [[256, 26], [511, 26 + 255]]  # one image: the cell below is white


@pytest.mark.parametrize("rows", [1, 3])
def test_conditions_are_a_first_column_as_high_as_the_rows(rows):
    conditions = [("identity", plain(GREEN)[0]), ("layout", plain(RED, side=64)[0])]
    sheet = contact_sheet([("run", plain(BLUE, rows))], [*conditions, ("a prompt", None)])
    assert sheet.shape == (1, 26 + rows * 256, 2 * 256, 3)
    (_, top), (right, bottom) = where(sheet, GREEN)
    assert right < 256 and top == 26 and bottom < 26 + rows * 256 // 3
    (_, top), (right, below) = where(sheet, RED)
    assert right < 256 and bottom < top and below < 26 + 2 * rows * 256 // 3
    assert where(sheet, BLUE)[0] == [256, 26]
    text = sheet[0, 26 + 2 * rows * 256 // 3 :, :256]
    assert text.min() < 0.5  # ink


def test_a_long_text_stays_in_its_cell():
    sheet = contact_sheet([("run", plain(BLUE))], [("a photo of somebody " * 6, None)])
    (left, top), _ = where(sheet, torch.full((3,), 40 / 255))
    assert left > 5 and top < 26
    assert (sheet[0, 26:, 256:] - BLUE).abs().max() < 0.01


def test_mean_cosines():
    assert mean_cosines(report(0.25)) == {"A / B": 0.25}
    assert mean_cosines({"steps": [], "final": {}}) == {}


def inks(curves: torch.Tensor, color: str) -> int:
    """Pixels of a line's color."""
    rgb = torch.tensor([int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return int(((curves[0] - rgb).abs().amax(-1) < 0.02).sum())


def sides(curves: torch.Tensor) -> tuple[int, int]:
    """Columns and rows of plots, from the size of their picture."""
    return curves.shape[2] // WIDTH, curves.shape[1] // HEIGHT


def test_curves_of_several_runs_have_a_plot_for_each_condition_and_pair():
    one, two = report(0.25), report(-0.5)
    assert sides(run_curves({"one": one, "two": two})) == (2, 2)  # A, B; A / B
    assert sides(run_curves({"one": one})) == (2, 2)  # A, B; cosines
    without = {**one, "steps": [{**step, "cosines": []} for step in one["steps"]]}
    assert sides(run_curves({"one": without, "two": without})) == (2, 1)


def test_each_run_has_its_line_and_its_name():
    """Also runs whose names a library of plots takes for something else."""
    runs = {"one": report(0.25), "_two": report(-0.5), "$three$": report(0.75)}
    curves = run_curves(runs)
    alone = run_curves({"one": report(0.25), "_two": report(-0.5)})
    assert all(inks(curves, color) > 100 for color in COLORS[:3])
    assert inks(alone, COLORS[2]) == 0
    assert curves.shape[1] > alone.shape[1]  # a second line of names


def test_more_lines_than_can_be_told_apart_are_counted():
    """Only 24 of 45 pairs of conditions are drawn and named."""
    names = [f"condition {k}" for k in range(10)]
    step = {"conditions": names, "energies": [[1.0]] * 10, "correction": []}
    step["cosines"] = [[[i / 10 - j / 20 for j in range(10)] for i in range(10)]]
    panels = [Panel("cosines", cosine_lines({"steps": [step] * 2, "final": {}}))]
    assert len(panels[0].lines) == 45
    assert picture_of(panels).shape[1] == HEIGHT + 30 + 20 * 12


def test_runs_are_drawn_at_once_by_several_threads():
    panels = [Panel("A", {"one": [(0.0, 1.0), (1.0, 0.5)], "two": [(0.0, 2.0), (1.0, 0.0)]})]
    expected = picture_of(panels)
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(picture_of, [panels] * 8))
    assert all(torch.equal(curves, expected) for curves in drawn)
    pyplot = sys.modules.get("matplotlib.pyplot")  # other packages may have imported it
    assert pyplot is None or not pyplot.get_fignums()


def test_without_matplotlib_a_sentence_stands_in_place_of_the_plots(monkeypatch):
    for module in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    curves = run_curves({"one": report(0.25)})
    assert torch.equal(curves, sentence(MISSING, WIDTH, HEIGHT))
    assert curves.shape == (1, HEIGHT, WIDTH, 3) and curves.min() < 0.5  # ink
