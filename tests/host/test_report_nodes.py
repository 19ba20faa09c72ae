"""Compare Z-Magic Runs inside the real host."""

import json

import pytest
import torch

from zmagic.guidance.trace import Trace
from zmagic.nodes.report_nodes import ZMagicCompareRuns


def compare(count: int = 2, labels: str = "one, two", **optional):
    """Sheet, curves and summary of runs with grey images."""
    images = {f"image{k}": torch.full((1, 128, 128, 3), 0.5) for k in range(count)}
    run = Trace({}, [], {"Text": [0.5]}).to_json()
    reports = {f"report{k}": run for k in range(count)}
    return ZMagicCompareRuns.execute(images, reports, labels, **optional).args


def test_a_graph_from_before_there_were_references():
    sheet, _, summary = compare()
    assert sheet.shape == (1, 26 + 256, 2 * 256, 3)
    assert list(json.loads(summary)) == ["one", "two"]
    assert json.loads(summary)["one"]["cosines"] == {}
    assert torch.equal(compare(references={}, captions=" \n")[0], sheet)


@pytest.mark.parametrize("captions", ["", "person", "person\nlayout", "person\nlayout\na prompt"])
def test_references_and_captions_make_a_first_column(captions):
    red = torch.tensor((1.0, 0.0, 0.0)).expand(1, 100, 80, 3)
    references = {"reference0": red, "reference1": red, "reference2": None}
    with torch.inference_mode():
        sheet = compare(references=references, captions=captions)[0]
    assert sheet.shape == (1, 26 + 256, 3 * 256, 3)
    column = sheet[0, 26:, :256]
    rows = ((column - red[0, 0, 0]).abs().amax(-1) < 0.02).any(1)
    assert int(rows.int().diff().abs().sum()) >= 3  # a gap between the two pictures
    prompt = (sheet[0, 26 + 2 * 256 // 3 :, :256].amin(-1) < 0.5).any()
    assert bool(prompt) or "prompt" not in captions


def test_labels_must_fit():
    with pytest.raises(
        ValueError, match=r"^Compare Z-Magic Runs: labels names 1 runs \(one\), but"
    ):
        compare(labels="one")
