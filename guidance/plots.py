"""Pictures of runs: labelled sheets of images and energy curves, drawn with Pillow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["contact_sheet", "run_curves"]

PANEL = (360, 240)  # width and height of one plot in pixels
MARGIN = 44
LABEL = 26  # height of a label strip in pixels
SMALLEST_CELL = 192  # smaller images are enlarged by a whole factor, so that they can be seen
INK = (40, 40, 40)
GRID = (225, 225, 225)
PAPER = (255, 255, 255)
# Okabe-Ito: distinguishable with any colour vision.
COLOURS = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
)


@dataclass(frozen=True)
class Panel:
    """One plot: a title and lines ``label -> [(x, y), ...]``."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def contact_sheet(columns: Sequence[tuple[str, Tensor]]) -> Tensor:
    """Labelled columns of images side by side, one row per image of the batch.

    Args:
        columns: ``(label, images [B, H, W, 3] in [0, 1])``; batches of different length leave
            white cells, images of different size are centred.

    Returns:
        ``[1, H', W', 3]`` in [0, 1].
    """
    pictures = [(label, [_picture(image) for image in images]) for label, images in columns]
    cells = [picture.size for _, column in pictures for picture in column]
    width, height = (max(side) for side in zip(*cells, strict=True))
    rows = max(len(column) for _, column in pictures)
    sheet = Image.new("RGB", (width * len(pictures), LABEL + height * rows), PAPER)
    draw = ImageDraw.Draw(sheet)
    for c, (label, column) in enumerate(pictures):
        _centred(draw, label, (c * width + width // 2, LABEL // 2))
        for r, picture in enumerate(column):
            left = c * width + (width - picture.width) // 2
            sheet.paste(picture, (left, LABEL + r * height + (height - picture.height) // 2))
    return _tensor(sheet)


def run_curves(runs: Mapping[str, dict]) -> Tensor:
    """Energy per condition over the steps of one or several runs, averaged over the batch.

    One run alone also shows the cosines between its conditions and the size of the correction.

    Args:
        runs: label to report (``Trace.to_json``, parsed).

    Returns:
        ``[1, H, W, 3]`` in [0, 1].
    """
    names = list(dict.fromkeys(name for run in runs.values() for name in _conditions(run)))
    panels = [
        Panel(name, {label: _energy_line(run, name) for label, run in runs.items()})
        for name in names
    ]
    if len(runs) == 1:
        (run,) = runs.values()
        panels += [Panel("cosines of gradients", _cosine_lines(run))]
        panels += [Panel("RMS of the correction", {"": _line(run, "correction")})]
    return _draw_panels([panel for panel in panels if any(panel.lines.values())])


def _conditions(run: dict) -> list[str]:
    return [name for step in run["steps"] for name in step["conditions"]] + list(run["final"])


def _mean(values: list) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _energy_line(run: dict, name: str) -> list[tuple[float, float]]:
    points = [
        (x, _mean(step["energies"][step["conditions"].index(name)]))
        for x, step in enumerate(run["steps"])
        if name in step["conditions"]
    ]
    if name in run["final"]:
        points.append((len(run["steps"]), _mean(run["final"][name])))
    return [(x, y) for x, y in points if y is not None]


def _cosine_lines(run: dict) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for x, step in enumerate(run["steps"]):
        names = step["conditions"]
        for i in range(len(names)):
            for j in range(i):
                values = [sample[i][j] for sample in step["cosines"]]
                if values:
                    lines.setdefault(f"{names[j]} / {names[i]}", []).append((x, _mean(values)))
    return lines


def _line(run: dict, key: str) -> list[tuple[float, float]]:
    return [(x, _mean(step[key])) for x, step in enumerate(run["steps"]) if step[key]]


def _draw_panels(panels: list[Panel]) -> Tensor:
    columns = min(3, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    sheet = Image.new("RGB", (PANEL[0] * columns, PANEL[1] * rows), PAPER)
    for k, panel in enumerate(panels):
        sheet.paste(_draw(panel), (PANEL[0] * (k % columns), PANEL[1] * (k // columns)))
    return _tensor(sheet)


def _draw(panel: Panel) -> Image.Image:
    picture = Image.new("RGB", PANEL, PAPER)
    draw = ImageDraw.Draw(picture)
    points = [point for line in panel.lines.values() for point in line]
    low, high = min(y for _, y in points), max(y for _, y in points)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    last = max(1.0, max(x for x, _ in points))
    inner = (PANEL[0] - MARGIN - 12, PANEL[1] - MARGIN - LABEL)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            MARGIN + x / last * inner[0],
            LABEL + (1.0 - (y - low) / (high - low)) * inner[1],
        )

    for share in (0.0, 0.5, 1.0):
        y = low + share * (high - low)
        draw.line([place(0, y), place(last, y)], fill=GRID)
        draw.text((4, place(0, y)[1] - 6), f"{y:.3g}", fill=INK, font=_font(11))
    _centred(draw, panel.title, (PANEL[0] // 2, LABEL // 2))
    for k, (label, line) in enumerate(panel.lines.items()):
        colour = COLOURS[k % len(COLOURS)]
        placed = [place(x, y) for x, y in line]
        if len(placed) > 1:
            draw.line(placed, fill=colour, width=2, joint="curve")
        for x, y in placed[-1:]:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        draw.text((MARGIN + 110 * k, PANEL[1] - 18), label[:20], fill=colour, font=_font(11))
    return picture


def _centred(draw: ImageDraw.ImageDraw, text: str, middle: tuple[int, int]) -> None:
    draw.text(middle, text, fill=INK, font=_font(14), anchor="mm")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _picture(image: Tensor) -> Image.Image:
    """``[H, W, 3]`` in [0, 1] to a picture, enlarged by a whole factor if it is tiny."""
    pixels = image.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()
    picture = Image.fromarray(pixels)
    factor = max(1, -(-SMALLEST_CELL // picture.height))
    return picture.resize((picture.width * factor, picture.height * factor), Image.BICUBIC)


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).float().div(255)[None]
