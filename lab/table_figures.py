"""The plots of the tables, from the store."""

from collections.abc import Mapping
from pathlib import Path

from .figures import Panel, draw_panels, mean_lines
from .methods import BASELINE, FAITHFUL, UNGUIDED
from .plan import Plan
from .report import Choice, found_rows, rows_of
from .results import Store
from .tasks import attributes_of

__all__ = ["write_figures"]

# Methods that are drawn: more lines cannot be told apart.
DRAWN = (UNGUIDED, BASELINE, "FreeDoM + CAGrad", "MPGD", "Z-Magic default", FAITHFUL)
WITH_AND_WITHOUT = {BASELINE: "without dependence", FAITHFUL: "with dependence"}


def write_figures(store: Store, plan: Plan, choices: Mapping[str, Choice], folder: Path) -> None:
    """Write energies.png, tradeoff.png and cosines.png into the folder."""
    energies, tradeoffs, cosines = [], [], []
    for task in plan.tasks:
        found = found_rows(store, "test", task, choices[task].strengths)
        names = attributes_of(task)
        energies += [_energies(task, name, found) for name in names]
        tradeoffs += [
            _tradeoff(store, plan, task, choices[task], (names[i], names[j]))
            for j in range(len(names))
            for i in range(j)
        ]
        cosines.append(_cosines(task, found))
    draw_panels(energies, folder / "energies.png")
    draw_panels(tradeoffs, folder / "tradeoff.png")
    draw_panels(cosines, folder / "cosines.png")


def _energies(task: str, name: str, found: Mapping) -> Panel:
    lines = {
        method: mean_lines([row["energies"][name] for row in found[method][1].values()])
        for method in DRAWN
        if method in found
    }
    return Panel(f"{name} ({task})", lines, x="share of the sampling", y="energy")


def _tradeoff(store: Store, plan: Plan, task: str, choice: Choice, pair: tuple[str, str]) -> Panel:
    """One curve for each method: the evaluator's distances while the strength rises."""
    lines = {}
    for method in DRAWN:
        if method not in choice.scores:
            continue
        rows = [rows_of(store, "tune", task, method, strength) for strength in plan.strengths]
        unguided = rows_of(store, "tune", task, UNGUIDED, 0.0)
        lines[method] = [
            tuple(_mean_distance(each, name) for name in pair) for each in (unguided, *rows) if each
        ]
    return Panel(
        f"strength {', '.join(f'{s:g}' for s in plan.strengths)} ({task})",
        lines,
        x=f"distance of {pair[0]}, by the evaluator",
        y=f"distance of {pair[1]}",
        marked=True,
    )


def _cosines(task: str, found: Mapping) -> Panel:
    lines = {
        label: mean_lines([row["cosine"] for row in found[method][1].values()])
        for method, label in WITH_AND_WITHOUT.items()
        if method in found
    }
    return Panel(f"cosine of the conditions' gradients ({task})", lines, x="share of the sampling")


def _mean_distance(rows: Mapping[int, dict], name: str) -> float:
    seen = [row["evaluator"][name] for row in rows.values() if row["evaluator"][name] is not None]
    return sum(seen) / len(seen)
