"""What became of each condition in a run, in numbers and in one sentence.

Worked out from a report as JSON holds it (``Trace.content``), so that a sentence can be made of
any report. Energies are means over the pictures of the batch that have a number in each of them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any, TypeGuard

from .means import known_mean
from .wording import numbered

__all__ = ["Outcome", "Satisfaction", "in_words", "outcomes", "satisfaction"]

# Parts beyond it say that the first energy was next to nothing, and no more: ten times as much.
LARGEST_PART = 10.0


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


@dataclass(frozen=True)
class Satisfaction:
    """When a condition was satisfied.

    Args:
        satisfied_looks: the looks at single pictures at which it was, and all of them; None if it
            cannot be satisfied, or never guided.
        satisfied_from: the step, from 0, from which on it was in all pictures to its last look;
            None if there is none.
    """

    satisfied_looks: tuple[int, int] | None = None
    satisfied_from: int | None = None


def satisfaction(report: dict[str, Any], name: str) -> Satisfaction:
    """When the condition of that name was satisfied, by a report's steps."""
    facts = [each for each in report.get("conditions", []) if each["name"] == name]
    if not facts or facts[0].get("satisfied_at") is None:
        return Satisfaction()
    looks = [(step["step"], _done(step, name)) for step in report["steps"] if _guided(step, name)]
    if not looks:
        return Satisfaction()
    since = None
    for step, done in looks:
        since = (step if since is None else since) if all(done) else None
    each = [one for _, done in looks for one in done]
    return Satisfaction((sum(each), len(each)), since)


def _guided(step: dict[str, Any], name: str) -> bool:
    return name in step["conditions"] and step["path"] != "measure"


def _done(step: dict[str, Any], name: str) -> list[bool]:
    """In which pictures a condition of the step was satisfied."""
    place = step["conditions"].index(name)
    pictures = len(step["energies"][place])
    return step["satisfied"][place] if step.get("satisfied") else [False] * pictures


def outcomes(report: dict[str, Any]) -> list[Outcome]:
    """The outcomes of all conditions that a report has energies of, in the order of the nodes."""
    goals = {facts["name"]: facts["goal"] for facts in report.get("conditions", [])}
    names = [*goals, *(name for step in report["steps"] for name in step["conditions"])]
    names += report["final"]
    unguided = report.get("unguided", {})
    made = []
    for name in dict.fromkeys(names):
        energies = (_first(report["steps"], name), report["final"].get(name), unguided.get(name))
        start, end, beside = _means(energies)
        if end is None:  # no picture has a number with guidance and without
            start, end = _means(energies[:2])
        made.append(Outcome(name, start, end, beside, goals.get(name)))
    return [each for each in made if each.start is not None or each.end is not None]


def in_words(report: dict[str, Any]) -> str:
    """One sentence on a run.

    Such as ``Face Identity +61 % towards the goal; energy of Text 38 % lower; face found in 12 of
    12 looks; 1 warning``. A condition that was satisfied: ``Text satisfied from step 5 on``.
    """
    made = outcomes(report)
    ways = ((each.name, each.towards_goal) for each in made)
    known = [(name, part) for name, part in ways if _says_something(part)]
    goals = {name for name, _ in known}
    free = [(e.name, e.start, e.end, e.fall) for e in made if e.name not in goals]
    beside = [(e.name, e.unguided, e.end, e.below_unguided) for e in made]
    parts = [
        _listed(((name, _signed(part)) for name, part in known), "", " towards the goal"),
        _changes("energy of ", free),
        _changes("against unguided: energy of ", beside),
        _listed(_satisfied(report), "", ""),
        _listed(_unseen(report), "", ""),
        _best_of(report),
        _found_noise(report.get("noise")),
        _looks(report.get("conditions", [])),
        _calibrated(report.get("calibration")),
        _counted(len(report.get("warnings", []))),
    ]
    if report.get("settings", {}).get("strength") == 0.0:
        parts.insert(0, "not guided")
    if not report["final"]:
        parts.insert(0, _without_end(report.get("conditions", [])))
    return "; ".join(part for part in parts if part)


def _best_of(report: dict[str, Any]) -> str:
    """Which of several seeds it is."""
    candidates, seed = report.get("candidates", []), report.get("about", {}).get("seed")
    if not candidates or seed is None:
        return ""
    said = [f"the best of {len(candidates)} candidates has seed {seed}"]
    for name in candidates[0]["energies"]:
        hidden = sum(None in each["energies"][name] for each in candidates)
        said += [f"{hidden} of them without an energy of {name}"] if hidden else []
    return ", ".join(said)


def _found_noise(noise: dict[str, Any] | None) -> str:
    """Which of the noises that a search looked at it is; evaluations count from 1."""
    if not noise:
        return ""
    numbers = ", ".join(str(number + 1) for number in noise["best"])
    return f"the best of {noise['evaluations']} noises is number {numbers}"


def _satisfied(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names, and when each condition was satisfied, if it was; steps count from 1."""
    for facts in report.get("conditions", []):
        found = satisfaction(report, facts["name"])
        if found.satisfied_from is not None:
            yield facts["name"], f"satisfied from step {found.satisfied_from + 1} on"
        elif found.satisfied_looks and found.satisfied_looks[0]:
            times, looks = found.satisfied_looks
            yield facts["name"], f"satisfied in {times} of {looks} looks"


def _unseen(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names, and where it was not seen at the end what each condition is about."""
    for facts in report.get("conditions", []):
        hidden, count = facts.get("unseen", []), len(report["final"].get(facts["name"], []))
        if hidden and len(hidden) == count:
            yield facts["name"], "not seen in the finished picture"
        elif hidden:
            yield facts["name"], f"not seen in picture {numbered(hidden)}"


def _changes(
    before: str, changes: Iterable[tuple[str, float | None, float | None, float | None]]
) -> str:
    """By name: the energy that is compared with, the one at the end, and the part that is gone."""
    told = (
        (name, _compared(first, end, part))
        for name, first, end, part in changes
        if first is not None and end is not None
    )
    return _listed(told, before, "")


def _listed(told: Iterable[tuple[str, str]], before: str, after: str) -> str:
    listed = ", ".join(f"{name} {words}" for name, words in told)
    return f"{before}{listed}{after}" if listed else ""


def _signed(part: float) -> str:
    return f"{round(100 * part):+d} %"


def _compared(first: float, end: float, part: float | None) -> str:
    if not _says_something(part):
        return f"from {first:.3g} to {end:.3g}"
    percent = round(100 * part)
    return f"{abs(percent)} % {'lower' if percent >= 0 else 'higher'}"


def _says_something(part: float | None) -> TypeGuard[float]:
    return part is not None and abs(part) <= LARGEST_PART


def _without_end(conditions: Iterable[dict[str, Any]]) -> str:
    weights = [facts["weight"] for facts in conditions]
    if weights and not any(weights):
        return "the weight of all conditions is 0"
    return "no finished picture to measure"


def _looks(conditions: Iterable[dict[str, Any]]) -> str:
    counts = [facts["face_looks"] for facts in conditions if facts["face_looks"]]
    if not counts:
        return ""
    found, looks = (sum(numbers) for numbers in zip(*counts, strict=True))
    return f"face found in {found} of {looks} looks"


def _calibrated(calibration: dict[str, Any] | None) -> str:
    return f"calibrated: strength {calibration['strength']:.3g}" if calibration else ""


def _counted(warnings: int) -> str:
    if not warnings:
        return ""
    return f"{warnings} warning{'s' if warnings > 1 else ''}"


def _part(start: float | None, end: float | None, goal: float) -> float | None:
    if start is None or end is None or not start > goal:
        return None
    return (start - end) / (start - goal)


def _first(steps: list[dict[str, Any]], name: str) -> list[float | None] | None:
    """A condition's energies at its first look that gave a number."""
    for step in steps:
        if name in step["conditions"]:
            energies = step["energies"][step["conditions"].index(name)]
            if any(value is not None for value in energies):
                return energies
    return None


def _means(energies: Iterable[list[float | None] | None]) -> list[float | None]:
    """The mean of each list over the same pictures: those that have a number in all lists.

    A list without any number has no mean, and takes no picture from the others.
    """
    lists = [values if _has_number(values) else None for values in energies]
    known = [values for values in lists if values]
    there = [None not in picture for picture in zip(*known, strict=False)]
    return [known_mean(compress(values, there)) if values else None for values in lists]


def _has_number(values: list[float | None] | None) -> bool:
    return any(value is not None for value in values or ())
