"""Compare Z-Magic Runs inside the real host."""

import json

import pytest
import torch

from zmagic.guidance.trace import Trace
from zmagic.nodes.compare_runs_node import ZMagicCompareRuns


def compare(count: int = 2, labels: str = "one, two", **optional):
    """Sheet, curves and summary of runs with gray images."""
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


def report(count: int = 1, steps: int = 1) -> str:
    names = [f"condition {k}" for k in range(count)]
    step = {
        "step": 0,
        "conditions": names,
        "energies": [[1.0]] * count,
        "cosines": [],
        "correction": [],
    }
    return json.dumps(
        {"steps": [step] * steps, "final": {name: [0.5] for name in names}, "totals": {}}
    )


def refused(message: str, **inputs):
    inputs = {
        "images": {"image0": torch.zeros(1, 8, 8, 3)},
        "reports": {"report0": report()},
        "labels": "one",
        **inputs,
    }
    with pytest.raises(ValueError, match=f"^Compare Z-Magic Runs: .*{message}") as error:
        ZMagicCompareRuns.execute(**inputs)
    assert len(str(error.value)) < 600
    str(error.value).encode()


def test_labels_must_differ():
    two = {f"image{k}": torch.zeros(1, 8, 8, 3) for k in range(2)}
    reports = {f"report{k}": report() for k in range(2)}
    refused("labels must differ, got 'x' more than once", images=two, reports=reports, labels="x,x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "[]",
        "{}",
        "[" * 100_000,
        "\udc80",
        '{"steps": [], "final": [], "totals": {}}',
        '{"steps": [1], "final": {}, "totals": {}}',
        '{"steps": [{}], "final": {}, "totals": {}}',
        '{"steps": [{"conditions": ["a"], "energies": []}], "final": {}, "totals": {}}',
        '{"steps": [], "final": {"a": 5}, "totals": {}}',
        '{"steps": [], "final": {"a": ["x"]}, "totals": {}}',
        '{"steps": [], "final": {"a": [1e999]}, "totals": {}}',
        '{"steps": [], "final": {"a": [1' + "0" * 400 + ']}, "totals": {}}',
        report().replace('"cosines": []', '"cosines": [[[1, 2]]]'),
        report().replace('"cosines": []', '"cosines": 3'),
        report().replace('"correction": []', '"correction": ["a"]'),
        report().replace("condition 0", "\\ud800").replace("[[1.0]]", "[1.0]"),
        report(5_000),
        report(1, 20_000),
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_reports_that_are_none(text):
    refused("report", reports={"report0": text})


def test_sizes_are_bounded():
    for shape in ((1, 1, 1000, 3), (1, 1000, 1, 3), (64, 300, 200, 3), (1, 4000, 4000, 3)):
        images = {"image0": torch.zeros(shape)}
        sheet = ZMagicCompareRuns.execute(images, {"report0": report()}, "one").args[0]
        assert max(sheet.shape) < 17_000 and sheet.numel() < 3 * 33_000_000
        assert min(sheet.shape[1:3]) > 1
    refused("holds 65 pictures, expected at most 64", images={"image0": torch.zeros(65, 8, 8, 3)})
    refused("lines, expected at most 64", captions="x\n" * 1000)
    curves = ZMagicCompareRuns.execute(
        {"image0": torch.zeros(1, 8, 8, 3)}, {"report0": report(150)}, "one"
    ).args[1]
    assert curves.shape[1] * curves.shape[2] < 10_000_000


def test_any_label_and_caption_can_be_drawn():
    named = report().replace("condition 0", "\\ud800")
    inputs = ({"image0": torch.zeros(1, 8, 8, 3)}, {"report0": named})
    for text in ("\udc80", "x" * 10_000, "\x00", "\u65e5\u672c", "a\tb"):
        caption = f"{text}\n{text} {text}"
        sheet, curves, _ = ZMagicCompareRuns.execute(*inputs, text, captions=caption).args
        assert sheet.isfinite().all() and curves.isfinite().all()


@pytest.mark.parametrize("value", [1e38, -1e299, 0.0, None])
def test_any_energy_can_be_drawn(value):
    text = report().replace("[[1.0]]", json.dumps([[value]]))
    images = {"image0": torch.zeros(1, 8, 8, 3)}
    _, curves, summary = ZMagicCompareRuns.execute(images, {"report0": text}, "one").args
    assert curves.isfinite().all() and "Infinity" not in summary


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 0, 8, 3), "is empty"),
        (torch.full((1, 8, 8, 3), 255, dtype=torch.uint8), "whole numbers"),
        (torch.full((1, 8, 8, 3), torch.nan), "not numbers"),
    ],
)
def test_images_are_looked_at(image, message):
    refused(message, images={"image0": image})
    refused(message, references={"reference0": image})


def test_images_in_half_precision():
    images = {"image0": torch.rand(1, 8, 8, 3).half()}
    assert ZMagicCompareRuns.execute(images, {"report0": report()}, "one").args[0].max() <= 1.0
