"""Pictures of runs: labelled sheets of images and energy curves, drawn with Pillow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .trace import rounded
from .wording import printable

__all__ = ["contact_sheet", "mean_cosines", "run_curves"]

PANEL = (360, 240)  # width and height of one plot in pixels
MARGIN = 44
LABEL = 26  # height of a label strip in pixels
GAP = 12  # beside a picture or a text in pixels
SMALLEST_CELL = 192  # smaller images are enlarged by a whole factor, so that they can be seen
NARROWEST_CELL = 48  # a picture of one row or column has some paper around it
LONGEST_CELL = 4  # widths of a picture in heights that are enlarged as much as a square
# Pixels of a sheet, and along a side of it: larger pictures are made smaller.
LARGEST_AREA, LARGEST_SIDE = 32_000_000, 16_000
MOST_PANELS = 60  # plots of one picture; further ones are counted
LONGEST_LABEL = 60  # characters of a line that is drawn
INK = (40, 40, 40)
GRID = (225, 225, 225)
PAPER = (255, 255, 255)
# Okabe-Ito: distinguishable with any color vision.
COLORS = (
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


def contact_sheet(
    columns: Sequence[tuple[str, Tensor]],
    conditions: Sequence[tuple[str, Tensor | None]] = (),
) -> Tensor:
    """Labelled columns of images side by side, one row per image of the batch.

    Args:
        columns: ``(label, images [B, H, W, 3] in [0, 1])``; batches of different length leave
            white cells, images of different size are centered.
        conditions: what a first column shows, from top to bottom: ``(caption, image [H, W, 3])``
            for a reference picture, ``(text, None)`` for a text.

    Returns:
        ``[1, H', W', 3]`` in [0, 1].
    """
    sizes = [_size_of(images) for _, images in columns]
    width, height = (max(side) for side in zip(*sizes, strict=True))
    rows = max(len(images) for _, images in columns)
    across, down = width * (len(columns) + bool(conditions)), height * rows
    scale = min(1.0, LARGEST_SIDE / max(across, down), (LARGEST_AREA / (across * down)) ** 0.5)
    width, height = (max(NARROWEST_CELL, int(side * scale)) for side in (width, height))
    pictures = [(label, [_picture(image, scale) for image in images]) for label, images in columns]
    first = width if conditions else 0
    sheet = Image.new("RGB", (first + width * len(pictures), LABEL + height * rows), PAPER)
    draw = ImageDraw.Draw(sheet)
    if conditions:
        _centered(draw, "conditions", (width // 2, LABEL // 2))
        side = min(height, height * rows // len(conditions))
        for k, (caption, image) in enumerate(conditions):
            sheet.paste(_condition((width, side), caption, image), (0, LABEL + k * side))
    for c, (label, column) in enumerate(pictures):
        _centered(draw, label, (first + c * width + width // 2, LABEL // 2))
        for r, picture in enumerate(column):
            left = first + c * width + (width - picture.width) // 2
            sheet.paste(picture, (left, LABEL + r * height + (height - picture.height) // 2))
    return _tensor(sheet)


def run_curves(runs: Mapping[str, dict]) -> Tensor:
    """Energy per condition over the steps of one or several runs, averaged over the batch.

    Then the cosines between the conditions' gradients: one plot per pair. One run alone shows them
    in one plot, and the size of its correction.

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
    else:
        cosines = {label: _cosine_lines(run) for label, run in runs.items()}
        pairs = dict.fromkeys(pair for lines in cosines.values() for pair in lines)
        panels += [
            Panel(
                f"cosine {pair}", {label: lines.get(pair, []) for label, lines in cosines.items()}
            )
            for pair in pairs
        ]
    panels = [panel for panel in panels if any(panel.lines.values())]
    more = len(panels) - MOST_PANELS
    if more > 0:
        panels = [*panels[: MOST_PANELS - 1], Panel(f"{more + 1:,} more are in the report", {})]
    return _draw_panels(panels)


def mean_cosines(run: dict) -> dict[str, float]:
    """Cosine between two conditions' gradients, averaged over the steps and the batch.

    Args:
        run: a report, as in ``run_curves``.
    """
    return {
        pair: rounded(sum(y for _, y in line) / len(line))
        for pair, line in _cosine_lines(run).items()
    }


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
                mean = _mean([sample[i][j] for sample in step["cosines"]])
                if mean is not None:
                    lines.setdefault(f"{names[j]} / {names[i]}", []).append((x, mean))
    return lines


def _line(run: dict, key: str) -> list[tuple[float, float]]:
    points = [(x, _mean(step[key])) for x, step in enumerate(run["steps"])]
    return [(x, y) for x, y in points if y is not None]


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
    if not points:
        _centered(draw, panel.title, (PANEL[0] // 2, PANEL[1] // 2))
        return picture
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
    _centered(draw, panel.title, (PANEL[0] // 2, LABEL // 2))
    for k, (label, line) in enumerate(panel.lines.items()):
        color = COLORS[k % len(COLORS)]
        placed = [place(x, y) for x, y in line]
        if len(placed) > 1:
            draw.line(placed, fill=color, width=2, joint="curve")
        for x, y in placed[-1:]:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=color)
        text = printable(label)[:20]
        draw.text((MARGIN + 110 * k, PANEL[1] - 18), text, fill=color, font=_font(11))
    return picture


def _condition(size: tuple[int, int], caption: str, image: Tensor | None) -> Image.Image:
    """A picture above its caption, or a text alone, on white."""
    cell = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(cell)
    if image is None:
        font = _font(15)
        text = _wrapped(draw, printable(caption), font, size[0] - 2 * GAP)
        middle = (size[0] // 2, size[1] // 2)
        draw.multiline_text(middle, text, INK, font, anchor="mm", align="center", spacing=6)
        return cell
    picture = _picture(image)
    room = [max(1, side - margin) for side, margin in zip(size, (GAP, LABEL), strict=True)]
    scale = min(room[0] / picture.width, room[1] / picture.height)
    sides = [max(1, round(scale * side)) for side in picture.size]
    picture = picture.resize(sides, Image.LANCZOS)
    cell.paste(picture, ((size[0] - picture.width) // 2, size[1] - LABEL - picture.height))
    _centered(draw, caption, (size[0] // 2, size[1] - LABEL // 2))
    return cell


def _wrapped(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Words in lines that are not wider than ``width`` pixels, if the words are not."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font=font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _centered(draw: ImageDraw.ImageDraw, text: str, middle: tuple[int, int]) -> None:
    text = " ".join(printable(text).split())  # on one line: several have no middle
    text = text if len(text) <= LONGEST_LABEL else f"{text[:LONGEST_LABEL]}..."
    draw.text(middle, text, fill=INK, font=_font(14), anchor="mm")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _size_of(images: Tensor) -> tuple[int, int]:
    """Width and height of ``[B, H, W, 3]`` on a sheet: tiny ones are enlarged by a whole factor."""
    height, width = images.shape[-3:-1]
    # Of a picture that is far longer than high the longer side counts.
    factor = max(1, -(-SMALLEST_CELL // max(height, width // LONGEST_CELL)))
    return width * factor, height * factor


def _picture(image: Tensor, scale: float = 1.0) -> Image.Image:
    """``[H, W, 3]`` in [0, 1] to a picture of its size on a sheet, times ``scale``."""
    pixels = image.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()
    sides = [max(1, int(side * scale)) for side in _size_of(image[None])]
    picture = Image.fromarray(pixels)
    return picture.resize(sides, Image.BICUBIC if scale == 1.0 else Image.LANCZOS)


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).float().div(255)[None]
