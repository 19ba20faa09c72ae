"""The sheets of plots that the tables have: lines over steps, curves of two distances."""

from collections.abc import Sequence
from pathlib import Path

from torchvision.transforms.functional import to_pil_image

from zmagic.guidance.plots import Panel, picture_of

__all__ = ["Panel", "draw_panels", "mean_lines"]

COLUMNS = 3


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
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil_image(picture_of(panels, COLUMNS)[0].movedim(-1, 0)).save(path)
