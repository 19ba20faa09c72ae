"""The plots of the tables, drawn with Pillow: lines over steps, curves of two distances."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from zmagic.guidance.plots import COLORS, GRID, INK, PAPER

__all__ = ["Panel", "draw_panels", "mean_lines"]

PANEL = (420, 320)  # width and height of one plot in pixels
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 30, 82
COLUMNS = 3
LEGEND_COLUMNS, LEGEND_LINE = 2, 15
FONT, TITLE_FONT = 11, 14
TICKS = (0.0, 0.5, 1.0)
# After so many colors the lines are thin ones of the same colors.
WIDTHS = (3, 1)

Line = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One plot.

    Args:
        title, x, y: texts; those of the axes may be empty.
        lines: label to points ``(x, y)``.
        marked: every point is shown, not the last one alone.
    """

    title: str
    lines: Mapping[str, Line]
    x: str = ""
    y: str = ""
    marked: bool = False


def mean_lines(lines: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Values of several pictures over their steps to one line, over the share of the sampling.

    Pictures of one method have equally many steps; a time-travelling one has more records.
    """
    count = min(map(len, lines), default=0)
    last = max(1, count - 1)
    return [(k / last, sum(line[k] for line in lines) / len(lines)) for k in range(count)]


def draw_panels(panels: Sequence[Panel], path: Path) -> None:
    """Write a sheet of plots; panels without a point are left out, a sheet without panels too."""
    panels = [panel for panel in panels if any(panel.lines.values())]
    if not panels:
        return
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (PANEL[0] * columns, PANEL[1] * rows), PAPER)
    for k, panel in enumerate(panels):
        sheet.paste(_drawn(panel), (PANEL[0] * (k % columns), PANEL[1] * (k // columns)))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _drawn(panel: Panel) -> Image.Image:
    picture = Image.new("RGB", PANEL, PAPER)
    draw = ImageDraw.Draw(picture)
    points = [point for line in panel.lines.values() for point in line]
    spans = [_span([point[axis] for point in points]) for axis in (0, 1)]
    sides = (PANEL[0] - LEFT - RIGHT, PANEL[1] - TOP - BOTTOM)

    def place(x: float, y: float) -> tuple[float, float]:
        shares = [(v - low) / (high - low) for v, (low, high) in zip((x, y), spans, strict=True)]
        return (LEFT + shares[0] * sides[0], TOP + (1.0 - shares[1]) * sides[1])

    (left, right), (low, high) = spans
    for share in TICKS:
        x, y = left + share * (right - left), low + share * (high - low)
        draw.line([place(left, y), place(right, y)], fill=GRID)
        _text(draw, (LEFT - 4, place(left, y)[1]), f"{y:.3g}", "rm")
        _text(draw, (place(x, low)[0], TOP + sides[1] + 3), f"{x:.3g}", "mt")
    _text(draw, (PANEL[0] / 2, TOP / 2), panel.title, "mm", size=TITLE_FONT)
    _text(draw, (LEFT + sides[0] / 2, TOP + sides[1] + 16), panel.x, "mt")
    _text(draw, (LEFT + 3, TOP + 2), panel.y, "lt")
    for k, (label, line) in enumerate(panel.lines.items()):
        color = COLORS[k % len(COLORS)]
        width = WIDTHS[min(k // len(COLORS), len(WIDTHS) - 1)]
        _line(draw, [place(*point) for point in line], color, width, panel.marked)
        row, column = divmod(k, LEGEND_COLUMNS)
        corner = (
            12 + column * PANEL[0] / LEGEND_COLUMNS,
            TOP + sides[1] + 32 + row * LEGEND_LINE,
        )
        _text(draw, corner, label, "lt", color)
    return picture


def _line(draw: ImageDraw.ImageDraw, placed: list, color, width: int, marked: bool) -> None:
    if len(placed) > 1:
        draw.line(placed, fill=color, width=width, joint="curve")
    for x, y in placed if marked else placed[-1:]:
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=color)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value, apart from each other."""
    low, high = min(values), max(values)
    return (low, high) if high - low > 1e-12 else (low - 0.5, high + 0.5)


def _text(draw, place, text: str, anchor: str, color=INK, size: int = FONT) -> None:
    draw.text(place, text, fill=color, font=ImageFont.load_default(size), anchor=anchor)
