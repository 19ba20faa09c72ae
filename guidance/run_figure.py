"""One run in one picture that is read at the size of a node: two plots by two, and a sentence.

How far each condition came, its energy over the steps, how the conditions' gradients agree before
and after dependence, and the size of the correction.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .contact_sheet import sentence
from .outcome import Outcome, outcomes
from .plots import COLORS, MISSING, pixels_of, write
from .reports import correction_line, energy_line, pair_cosines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["HEIGHT", "WIDTH", "run_figure"]

# In pixels. A node shows it about 400 wide, so that its letters are twice as large as on a page.
DPI, WIDTH, HEIGHT = 100, 800, 640
TITLE, TEXT = 14.5, 12.5  # points
LINES = 5  # of text below the plots
COLUMNS = 82  # letters of such a line
# Opaque paper and dark ink: read on light and on dark themes alike.
PAPER, INK, ALARM, GRID = "#fbfbf8", "#1a1a1a", "#a32a00", "0.86"
MOST = 6  # conditions that are drawn: as many as there are colors
LONGEST = 16  # letters of a condition's name
BEFORE, AFTER = COLORS[1], COLORS[0]
MARKERS = ("o", "s", "^", "D", "v", "P")


def run_figure(report: dict[str, Any]) -> Tensor:
    """Draw a run.

    Args:
        report: ``Trace.content``.

    Returns:
        ``[1, HEIGHT, WIDTH, 3]`` in [0, 1]; without matplotlib a sentence that says so.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return sentence(MISSING, WIDTH, HEIGHT)
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor=PAPER)
    canvas = FigureCanvasAgg(figure)
    made = outcomes(report)
    _way(_axes(figure, 0, 0), report, made)
    _energies(_axes(figure, 0, 1), report, made)
    _agreement(_axes(figure, 1, 0), report)
    _correction(_axes(figure, 1, 1), report)
    _say(figure, report)
    return pixels_of(canvas)


def _axes(figure: "Figure", row: int, column: int) -> "Axes":
    """One of the four plots, in a place that leaves room for letters of this size."""
    axes = figure.add_axes(((0.085, 0.595)[column], (0.64, 0.25)[row], 0.385, 0.29))
    axes.set_facecolor(PAPER)
    axes.tick_params(labelsize=TEXT, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    return axes


def _title(axes: "Axes", text: str) -> None:
    axes.set_title(text, fontsize=TITLE, color=INK, loc="left", x=-0.02)


def _nothing(axes: "Axes", text: str) -> None:
    """What stands in place of a plot that has no points."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=TEXT, color=INK)


def _way(axes: "Axes", report: dict[str, Any], made: Sequence[Outcome]) -> None:
    """A bar for each condition: the part of its start's energy that is gone at the end."""
    drawn = [each for each in made if each.fall is not None][:MOST]
    colors = [COLORS[made.index(each) % MOST] for each in drawn]  # of its line, too
    beside = any(each.unguided is not None for each in drawn)
    _title(axes, "energy gone, %" + (" (\u25c7 unguided)" if beside else ""))
    if not drawn:
        _nothing(axes, _without_way(report, made))
        return
    parts = [100.0 * (each.fall or 0.0) for each in drawn]
    without = [100.0 * (1.0 - (each.unguided or 0.0) / (each.start or 1.0)) for each in drawn]
    shown = [part for part, each in zip(without, drawn, strict=True) if each.unguided is not None]
    axes.barh(range(len(drawn)), parts, height=0.36, color=colors)
    axes.axvline(0.0, color=INK, linewidth=1.0)
    for place, each in enumerate(drawn):
        if each.unguided is not None:
            axes.plot(without[place], place, marker="D", color=PAPER, mec=INK, ms=8)
        text = axes.text(0.01, place - 0.28, "", transform=axes.get_yaxis_transform())
        text.set(fontsize=TEXT - 1.5, color=INK, va="bottom")
        text.set_bbox({"facecolor": PAPER, "linewidth": 0, "pad": 0.5})
        write(text, f"{_shortened(each.name)} {_numbers(each)}", COLUMNS)
    axes.set_ylim(max(3, len(drawn)) - 0.6, -0.85)
    low, high = min([0.0, *parts, *shown]), max([100.0, *parts])
    axes.set_xlim(max(-200.0, low - 8.0), high + 4.0)
    axes.set_yticks([])
    axes.ticklabel_format(axis="x", useLocale=False)


def _without_way(report: dict[str, Any], made: Sequence[Outcome]) -> str:
    if not report["final"]:
        return "no finished picture"
    if any(each.end is not None for each in made):
        return "no energy above 0 to fall"
    return "no energy of the finished picture"


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 2]}..."


def _numbers(each: Outcome) -> str:
    numbers = f"{each.start:.2g} to {each.end:.2g}"
    return numbers if each.unguided is None else f"{numbers}, \u25c7 {each.unguided:.2g}"


def _energies(axes: "Axes", report: dict[str, Any], made: Sequence[Outcome]) -> None:
    """Each condition's energy over the steps, as a part of that at its start."""
    _title(axes, "energies, start = 1")
    # A part of an energy below 0 would fall where the energy rises.
    lines = [
        (k, each, energy_line(report, each.name))
        for k, each in enumerate(made[:MOST])
        if each.start is not None and each.start > 0.0
    ]
    lines = [(k, each, line) for k, each, line in lines if line]
    if not lines:
        _nothing(axes, "no energies above 0")
        return
    for k, each, line in lines:
        x, y = zip(*line, strict=True)
        start = each.start or 1.0
        last = [len(x) - 1]
        parts = [value / start for value in y]
        axes.plot(x, parts, linewidth=2.2, color=COLORS[k], marker=MARKERS[k], markevery=last, ms=8)
    _steps(axes)


def _agreement(axes: "Axes", report: dict[str, Any]) -> None:
    """The cosines of the pairs of gradients: their mean, and from the lowest to the highest."""
    _title(axes, "cosines of gradients")
    drawn = False
    for key, label, color, dash in (
        ("cosines", "before dependence", BEFORE, "-"),
        ("task_cosines", "after", AFTER, "--"),
    ):
        points = [(x, pair_cosines(step, key)) for x, step in enumerate(report["steps"])]
        points = [(x, values) for x, values in points if values]
        if not points:
            continue
        drawn = True
        x = [place for place, _ in points]
        mean = [sum(values) / len(values) for _, values in points]
        low, high = ([pick(values) for _, values in points] for pick in (min, max))
        axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
        axes.plot(x, mean, dash, color=color, linewidth=2.2, label=label, marker="o", markersize=3)
    if not drawn:
        _nothing(axes, "no pair of gradients")
        return
    axes.axhline(0.0, color=INK, linewidth=1.0)
    axes.set_ylim(-1.05, 1.05)
    axes.legend(loc="lower center", ncols=2, fontsize=TEXT - 1, frameon=False, handlelength=1.6)
    _steps(axes)


def _correction(axes: "Axes", report: dict[str, Any]) -> None:
    """RMS of the correction in each evaluation."""
    _title(axes, "size of the correction")
    line = correction_line(report)
    if not line:
        _nothing(axes, "nothing was corrected")
        return
    x, y = zip(*line, strict=True)
    axes.plot(x, y, color=INK, linewidth=2.2, marker="o", markersize=3)
    axes.set_ylim(bottom=0.0)
    _steps(axes)


def _steps(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    # Points in numbers whatever the system's language is, or the settings that others made.
    axes.ticklabel_format(useLocale=False, useOffset=False, scilimits=(-3, 4))


def _say(figure: "Figure", report: dict[str, Any]) -> None:
    """The sentence on the run, and its warnings as far as there is room."""
    said = [(line, INK) for line in textwrap.wrap(report["words"], COLUMNS)]
    for warning in report["warnings"]:
        said += [(line, ALARM) for line in textwrap.wrap(f"! {warning}", COLUMNS)]
    if len(said) > LINES:
        said = [*said[: LINES - 1], ("... the rest is in the report", INK)]
    for k, (line, color) in enumerate(said):
        text = figure.text(0.03, 0.165 - 0.035 * k, "", fontsize=TEXT, color=color, va="center")
        write(text, line, COLUMNS)
