"""Pictures of runs: what is on a sheet, and the figures of a comparison."""

import pytest
import torch

from zmagic.guidance.plots import contact_sheet, mean_cosines, run_curves
from zmagic.guidance.trace import StepRecord, Trace

RED, GREEN, BLUE = torch.eye(3)


def plain(colour: torch.Tensor, count: int = 1, side: int = 128) -> torch.Tensor:
    """Images ``[count, side, side, 3]`` of one colour."""
    return colour.expand(count, side, side, 3).clone()


def report(cosine: float, batch: int = 2, steps: int = 3) -> dict:
    """Of a run with two conditions whose gradients have this cosine at every step."""
    matrix = [[1.0, cosine], [cosine, 1.0]]
    records = [
        StepRecord(k, 1.0, ["A", "B"], [[0.5] * batch, [1.0 - k / 9] * batch], [matrix] * batch)
        for k in range(steps)
    ]
    trace = Trace({}, records, {"A": [0.5] * batch, "B": [0.1] * batch})
    return {"steps": [vars(record) for record in trace.steps], "final": trace.final}


def where(sheet: torch.Tensor, colour: torch.Tensor) -> tuple[list, list]:
    """Columns and rows between which a sheet ``[1, H, W, 3]`` has a colour: first and last."""
    there = ((sheet[0] - colour).abs().amax(-1) < 0.02).nonzero()
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


def test_curves_of_several_runs_have_a_plot_for_each_condition_and_pair():
    one, two = report(0.25), report(-0.5)
    assert run_curves({"one": one, "two": two}).shape[1:3] == (240, 3 * 360)  # A, B, A / B
    assert run_curves({"one": one}).shape[1:3] == (240, 3 * 360)  # A, B, cosines
    without = {**one, "steps": [{**step, "cosines": []} for step in one["steps"]]}
    assert run_curves({"one": without, "two": without}).shape[1:3] == (240, 2 * 360)
