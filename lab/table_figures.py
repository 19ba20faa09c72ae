"""The plots of the tables, from the store."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .choice import Choice
from .figures import Panel, draw_panels, mean_lines
from .methods import BASELINE, FAITHFUL, UNGUIDED, Method
from .plan import Plan
from .report import Summary, found_rows, mean, rows_of
from .results import Store
from .tasks import attributes_of

__all__ = ["rank_curves", "write_figures", "write_ranks"]

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
            _tradeoff(store, task, choices[task], (names[i], names[j]))
            for j in range(len(names))
            for i in range(j)
        ]
        cosines.append(_cosines(task, found))
    draw_panels(energies, folder / "energies.png")
    draw_panels(tradeoffs, folder / "tradeoff.png")
    draw_panels(cosines, folder / "cosines.png")


def write_ranks(by_task: Mapping[str, Sequence[Summary]], plan: Plan, folder: Path) -> None:
    """Write ranks.png: the mean rank over the operations, of all methods in one plot.

    The first panel is the mean over the tasks, of the methods that all of them have.

    Args:
        by_task: name of the task to the rows of its table.
        plan: tells which rows there are.
        folder: the folder of the tables.
    """
    panels = []
    shared = set.intersection(*({s.method for s in rows} for rows in by_task.values()))
    for title, tasks in (("all tasks", list(by_task)), *((task, [task]) for task in by_task)):
        points = {
            method.name: [s for task in tasks for s in by_task[task] if s.method == method.name]
            for method in plan.rows(tasks[0])
            if len(tasks) == 1 or method.name in shared
        }
        lines = rank_curves(plan.rows(tasks[0]), points)
        axes = {"x": "operations, in plain pictures", "y": "mean rank by the evaluators"}
        panels.append(Panel(title, lines, **axes, marked=True, doubling=True))
    draw_panels(panels if len(by_task) > 1 else panels[1:], folder / "ranks.png")


def rank_curves(
    methods: Sequence[Method], points: Mapping[str, Sequence[Summary]]
) -> dict[str, list[tuple[float, float]]]:
    """Family to its points ``(operations, mean rank)``, along rising operations.

    Args:
        methods: the rows, which know their families.
        points: row to its summaries, of one task or of several.
    """
    lines: dict[str, list[tuple[float, float]]] = {}
    for method in methods:
        found = points.get(method.name, ())
        known = [s.operations for s in found if s.operations is not None]
        if not found or len(known) < len(found):
            continue
        lines.setdefault(method.family or method.name, []).append(
            (mean(known), mean(s.rank for s in found))
        )
    # The lines with several points have the colors that are told apart best.
    ordered = sorted(lines, key=lambda label: (label != "Z-Magic", -len(lines[label])))
    return {label: sorted(lines[label]) for label in ordered}


def _energies(task: str, name: str, found: Mapping) -> Panel:
    lines = {
        method: mean_lines([row["energies"][name] for row in found[method][1].values()])
        for method in DRAWN
        if method in found
    }
    return Panel(f"{name} ({task})", lines, x="share of the sampling", y="energy")


def _tradeoff(store: Store, task: str, choice: Choice, pair: tuple[str, str]) -> Panel:
    """One curve for each method: the evaluator's distances while the strength rises."""
    lines = {}
    for method in DRAWN:
        if method not in choice.scores:
            continue
        tried = sorted(choice.scores[method])
        rows = [rows_of(store, "tune", task, method, strength) for strength in tried]
        unguided = rows_of(store, "tune", task, UNGUIDED, 0.0)
        lines[method] = [
            tuple(_mean_distance(each, name) for name in pair) for each in (unguided, *rows) if each
        ]
    return Panel(
        f"strength rises ({task})",
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
