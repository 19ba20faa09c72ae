"""What became of each condition in a run, in numbers and in one sentence.

Worked out from a report as JSON holds it (``Trace.content``), so that a sentence can be made of
any report. Energies are means over the batch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Outcome", "in_words", "outcomes"]


@dataclass(frozen=True)
class Outcome:
    """One condition's way through a run.

    Args:
        name: the condition's.
        start: its energy at its first look at the prediction, before any correction of that.
        end: its energy of the finished picture.
        unguided: that of the same picture made without guidance.
        goal: the energy of a picture that is all it asks for; each of these None if not known.
    """

    name: str
    start: float | None = None
    end: float | None = None
    unguided: float | None = None
    goal: float | None = None

    @property
    def fall(self) -> float | None:
        """The part of the energy that is gone at the end; negative if it rose."""
        return _part(self.start, self.end, 0.0)

    @property
    def towards_goal(self) -> float | None:
        """The part of the way from the start's energy to the goal's; negative: away from it."""
        return None if self.goal is None else _part(self.start, self.end, self.goal)

    @property
    def below_unguided(self) -> float | None:
        """The part of the unguided picture's energy that guidance took away."""
        return _part(self.unguided, self.end, 0.0)


def outcomes(report: dict[str, Any]) -> list[Outcome]:
    """The outcomes of all conditions that a report has energies of, in the order of the nodes."""
    goals = {facts["name"]: facts["goal"] for facts in report.get("conditions", [])}
    names = [*goals, *(name for step in report["steps"] for name in step["conditions"])]
    names += report["final"]
    unguided = report.get("unguided", {})
    made = [
        Outcome(
            name,
            _first(report["steps"], name),
            _mean(report["final"].get(name)),
            _mean(unguided.get(name)),
            goals.get(name),
        )
        for name in dict.fromkeys(names)
    ]
    return [each for each in made if each.start is not None or each.end is not None]


def in_words(report: dict[str, Any]) -> str:
    """One sentence on a run.

    Such as ``Face Identity +61 % towards the goal; energy of Text 38 % lower; face found in 12 of
    12 looks; 1 warning``.
    """
    made = outcomes(report)
    known = [(each.name, each.towards_goal) for each in made if each.towards_goal is not None]
    goals = {name for name, _ in known}
    free = [(each.name, each.fall) for each in made if each.name not in goals]
    beside = [(each.name, each.below_unguided) for each in made]
    parts = [
        _listed(((name, _signed(part)) for name, part in known), "", " towards the goal"),
        _changes("energy of ", free),
        _changes("against unguided: energy of ", beside),
        _looks(report.get("conditions", [])),
        _counted(len(report.get("warnings", []))),
    ]
    if report.get("settings", {}).get("strength") == 0.0:
        parts.insert(0, "not guided")
    if not report["final"]:
        parts.insert(0, "no finished picture to measure")
    return "; ".join(part for part in parts if part)


def _changes(before: str, falls: Iterable[tuple[str, float | None]]) -> str:
    told = ((name, _compared(fall)) for name, fall in falls if fall is not None)
    return _listed(told, before, "")


def _listed(told: Iterable[tuple[str, str]], before: str, after: str) -> str:
    listed = ", ".join(f"{name} {words}" for name, words in told)
    return f"{before}{listed}{after}" if listed else ""


def _signed(part: float) -> str:
    return f"{round(100 * part):+d} %"


def _compared(fall: float) -> str:
    percent = round(100 * fall)
    return f"{abs(percent)} % {'lower' if percent >= 0 else 'higher'}"


def _looks(conditions: Iterable[dict[str, Any]]) -> str:
    counts = [facts["face_looks"] for facts in conditions if facts["face_looks"]]
    if not counts:
        return ""
    found, looks = (sum(numbers) for numbers in zip(*counts, strict=True))
    return f"face found in {found} of {looks} looks"


def _counted(warnings: int) -> str:
    if not warnings:
        return ""
    return f"{warnings} warning{'s' if warnings > 1 else ''}"


def _part(start: float | None, end: float | None, goal: float) -> float | None:
    if start is None or end is None or not start > goal:
        return None
    return (start - end) / (start - goal)


def _first(steps: list[dict[str, Any]], name: str) -> float | None:
    for step in steps:
        if name in step["conditions"]:
            mean = _mean(step["energies"][step["conditions"].index(name)])
            if mean is not None:
                return mean
    return None


def _mean(values: list[float | None] | None) -> float | None:
    known = [value for value in values or () if value is not None]
    return sum(known) / len(known) if known else None
