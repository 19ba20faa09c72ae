"""Plots of runs, drawn with matplotlib: energies and cosines over the steps.

matplotlib is imported when something is drawn. Figures are made without pyplot, whose figures and
settings are shared by all threads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .contact_sheet import sentence
from .reports import condition_names, correction_line, cosine_lines, energy_line
from .wording import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

__all__ = ["COLORS", "MISSING", "Line", "Panel", "picture_of", "pixels_of", "run_curves", "write"]

MISSING = (
    "Install matplotlib to see the curves: python -m pip install matplotlib\n"
    "The report has all figures."
)

# Okabe-Ito: distinguishable with any color vision.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# Lines beyond the colors: the same ones in other dashes.
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")  # for the points of each
DPI = 100
# In pixels. ComfyUI shows a picture in the width of a node, about 400: two plots beside each other
# are read there, more are not.
WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 34, 30
AXIS_LABEL = 18  # more room below or at the left where an axis has a label
LEGEND_LINE, LEGEND_COLUMNS = 20, 2
TEXT, TITLE_TEXT = 9.5, 11.0  # points; 1 point is 1.4 pixels
COLUMNS = 2
MOST_PANELS = 60  # plots of one picture; further ones are counted
MOST_LINES = 24  # of a plot: four dashes of six colors; further ones are counted
LONGEST_TITLE, LONGEST_LABEL = 48, 24  # characters

Line = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One plot.

    Args:
        title, x, y: its texts; those of the axes may be empty.
        lines: label to points ``(x, y)``. A plot without points is its title alone.
        marked: whether every point is marked, not the last one of a line alone.
        doubling: whether x doubles from mark to mark.
    """

    title: str
    lines: Mapping[str, Line]
    x: str = ""
    y: str = ""
    marked: bool = False
    doubling: bool = False


def run_curves(runs: Mapping[str, dict]) -> Tensor:
    """Energy per condition over the steps of one or several runs, averaged over the batch.

    Then the cosines between the conditions' gradients: one plot per pair. One run alone shows them
    in one plot, and the size of its correction. Without matplotlib: a sentence that says so.

    Args:
        runs: label to report (``Trace.to_json``, parsed).

    Returns:
        ``[1, H, W, 3]`` in [0, 1].
    """
    names = dict.fromkeys(name for run in runs.values() for name in condition_names(run))
    panels = [
        Panel(name, {label: energy_line(run, name) for label, run in runs.items()})
        for name in names
    ]
    if len(runs) == 1:
        (run,) = runs.values()
        panels += [Panel("cosines of gradients", cosine_lines(run))]
        panels += [Panel("RMS of the correction", {"": correction_line(run)})]
    else:
        cosines = {label: cosine_lines(run) for label, run in runs.items()}
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
    try:
        return picture_of(panels)
    except ImportError:
        return sentence(MISSING, WIDTH, HEIGHT)


def picture_of(panels: Sequence[Panel], columns: int = COLUMNS) -> Tensor:
    """Plots beside and below each other, ``[1, H, W, 3]`` in [0, 1]; one empty plot without any.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, max(1, len(panels)))
    rows = [panels[k : k + columns] for k in range(0, len(panels), columns)] or [[]]
    heights = [HEIGHT + max(map(_below, row), default=BOTTOM) for row in rows]
    width, height = WIDTH * columns, sum(heights)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    for i, row in enumerate(rows):
        bottom = height - sum(heights[:i]) - HEIGHT  # matplotlib counts from below
        for j, panel in enumerate(row):
            left = _left(panel)
            x, wide = (WIDTH * j + left) / width, (WIDTH - left - RIGHT) / width
            axes = figure.add_axes((x, bottom / height, wide, (HEIGHT - TOP) / height))
            _draw(axes, panel)
    return pixels_of(canvas)


def pixels_of(canvas: "FigureCanvasAgg") -> Tensor:
    """What is drawn on a figure's canvas, ``[1, H, W, 3]`` in [0, 1]."""
    canvas.draw()
    pixels = np.array(canvas.buffer_rgba())[..., :3]
    return torch.from_numpy(pixels.astype(np.float32) / 255.0)[None]


def _left(panel: Panel) -> int:
    """Pixels at the left of the axes: their numbers and their label."""
    return LEFT + (AXIS_LABEL if panel.y else 0)


def _below(panel: Panel) -> int:
    """Pixels below the axes: their numbers, their label and the legend."""
    legend = -(-len(_named(panel)) // LEGEND_COLUMNS) * LEGEND_LINE
    return BOTTOM + (AXIS_LABEL if panel.x else 0) + legend


def _named(panel: Panel) -> list[str]:
    """The labels of the legend; a single line without a name needs none."""
    labels = [label for label, line in panel.lines.items() if len(line)][:MOST_LINES]
    return [] if labels == [""] else labels


def _draw(axes: "Axes", panel: Panel) -> None:
    """Draw a plot into matplotlib's axes."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    lines = [line for line in panel.lines.values() if len(line)]
    if not lines:
        axes.set_axis_off()
        write(axes.text(0.5, 0.5, "", ha="center", va="center"), panel.title, LONGEST_TITLE)
        return
    for k, line in enumerate(lines[:MOST_LINES]):
        x, y = zip(*line, strict=True)
        axes.plot(
            x,
            y,
            color=COLORS[k % len(COLORS)],
            linestyle=DASHES[k // len(COLORS)],
            linewidth=1.8,
            marker=MARKERS[k // len(COLORS)],
            markersize=4.5,
            markevery=1 if panel.marked else [len(x) - 1],
        )
    more = len(lines) - MOST_LINES
    title = f"{panel.title}: {MOST_LINES} of {len(lines):,}" if more > 0 else panel.title
    write(axes.set_title("", fontsize=TITLE_TEXT), title, LONGEST_TITLE)
    write(axes.set_xlabel("", fontsize=TEXT), panel.x, LONGEST_TITLE)
    write(axes.set_ylabel("", fontsize=TEXT), panel.y, LONGEST_TITLE)
    axes.tick_params(labelsize=TEXT)
    if panel.doubling:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=not panel.x))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    # Points in numbers whatever the system's language is, or the settings that others made.
    axes.ticklabel_format(useLocale=False)
    axes.ticklabel_format(axis="y", scilimits=(-3, 4), useOffset=False)
    axes.yaxis.get_offset_text().set_fontsize(TEXT)
    axes.grid(color="0.88")
    axes.spines[["top", "right"]].set_visible(False)
    _legend(axes, panel)


def _legend(axes: "Axes", panel: Panel) -> None:
    """The names of the lines below the axes."""
    labels = _named(panel)
    if not labels:
        return
    left = _left(panel)
    middle = (WIDTH / 2 - left) / (WIDTH - left - RIGHT)  # of the plot, in widths of the axes
    below = -(BOTTOM + (AXIS_LABEL if panel.x else 0)) / (HEIGHT - TOP)
    # matplotlib leaves out labels that begin with "_": they are written into the legend afterwards.
    legend = axes.legend(
        axes.lines,
        ["label"] * len(labels),
        loc="upper center",
        bbox_to_anchor=(middle, below),
        borderaxespad=0.0,
        ncols=LEGEND_COLUMNS,
        frameon=False,
        fontsize=TEXT,
        handlelength=1.8,
        labelspacing=0.35,
        columnspacing=1.0,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        write(text, label, LONGEST_LABEL)


def write(artist: "Text", text: str, longest: int) -> None:
    """Let a text of the figure say what people wrote: one line, in which $ is a dollar."""
    text = " ".join(printable(text).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    artist.set_parse_math(False)
    artist.set_text(text if len(text) <= longest else f"{text[:longest]}...")
