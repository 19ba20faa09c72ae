"""Reports of runs read back from JSON of any origin, and the lines that plots draw of them."""

import json
from typing import Any

from .means import known_mean
from .trace import rounded
from .wording import quoted

__all__ = [
    "condition_names",
    "correction_line",
    "cosine_lines",
    "energy_line",
    "mean_cosines",
    "pair_cosines",
    "read_report",
]

# More than any graph has. Cosines are there for each pair of conditions in each step.
MOST_CONDITIONS, MOST_STEPS = 200, 10_000

# Larger energies cannot be drawn.
LARGEST = 1e300

# Characters of a report: 30 conditions in 100 steps have 3 million.
LONGEST = 100_000_000


def read_report(text: str) -> dict[str, Any]:
    """The steps, final energies and totals in a ``Trace.to_json``.

    Raises:
        ValueError: the text is something else, or holds more than can be compared.
    """
    if not isinstance(text, str) or len(text) > LONGEST:
        raise ValueError(f"expected a run's report, got {quoted(text)}")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a run's report, got {quoted(text)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected a run's report, got {quoted(text)}")
    kinds = {"steps": list, "final": dict, "totals": dict}
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise ValueError(
                f"expected a run's report, whose {key!r} is {kind.__name__}, "
                f"got {quoted(content.get(key))}"
            )
    _check_sizes(content)
    for number, step in enumerate(content["steps"]):
        wrong = _wrong_in(step)
        if wrong:
            raise ValueError(f"the report is damaged: step {number} has no proper {wrong!r}")
    for name, energies in content["final"].items():
        if not _are_numbers(energies):
            raise ValueError(
                f"the report is damaged: the final energies of {quoted(name)} are no numbers"
            )
    return {key: content[key] for key in kinds}


def condition_names(run: dict) -> list[str]:
    """The conditions of a report in the order of the steps, and of the end; some several times."""
    return [name for step in run["steps"] for name in step["conditions"]] + list(run["final"])


def energy_line(run: dict, name: str) -> list[tuple[float, float]]:
    """A condition's energy over the steps, ``(step, mean over the batch)``, and at the end."""
    points = [
        (x, known_mean(step["energies"][step["conditions"].index(name)]))
        for x, step in enumerate(run["steps"])
        if name in step["conditions"]
    ]
    if name in run["final"]:
        points.append((len(run["steps"]), known_mean(run["final"][name])))
    return [(x, y) for x, y in points if y is not None]


def correction_line(run: dict) -> list[tuple[float, float]]:
    """RMS of the correction over the steps, ``(step, mean over the batch)``."""
    points = [(x, known_mean(step["correction"])) for x, step in enumerate(run["steps"])]
    return [(x, y) for x, y in points if y is not None]


def cosine_lines(run: dict) -> dict[str, list[tuple[float, float]]]:
    """For each pair of conditions the cosine of their gradients over the steps, "A / B"."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for x, step in enumerate(run["steps"]):
        names = step["conditions"]
        for i in range(len(names)):
            for j in range(i):
                mean = known_mean([sample[i][j] for sample in step["cosines"]])
                if mean is not None:
                    lines.setdefault(f"{names[j]} / {names[i]}", []).append((x, mean))
    return lines


def pair_cosines(step: dict, key: str) -> list[float]:
    """The cosine of each pair of a step's conditions, averaged over the batch.

    Args:
        step: a step of a report.
        key: ``cosines``, of the conditions' own gradients, or ``task_cosines``, after dependence.
    """
    matrices = step.get(key, [])
    count = len(matrices[0]) if matrices else 0
    means = [known_mean([one[i][j] for one in matrices]) for i in range(count) for j in range(i)]
    return [mean for mean in means if mean is not None]


def mean_cosines(run: dict) -> dict[str, float]:
    """Cosine of two conditions' gradients, averaged over the steps and the batch, for each pair."""
    return {
        pair: rounded(sum(y for _, y in line) / len(line))
        for pair, line in cosine_lines(run).items()
    }


def _check_sizes(content: dict[str, Any]) -> None:
    steps = len(content["steps"])
    names = set(content["final"])
    for step in content["steps"][:MOST_STEPS]:
        conditions = step.get("conditions") if isinstance(step, dict) else None
        names |= set(map(repr, conditions)) if isinstance(conditions, list) else set()
    if steps > MOST_STEPS or len(names) > 2 * MOST_CONDITIONS:
        raise ValueError(
            f"the report holds {len(names):,} conditions in {steps:,} steps, expected at most "
            f"{MOST_CONDITIONS} in {MOST_STEPS:,}"
        )


def _wrong_in(step: Any) -> str:
    """The part of a step that is not as it should be, empty if all are."""
    if not isinstance(step, dict):
        return "step"
    names, energies = step.get("conditions"), step.get("energies")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return "conditions"
    if not isinstance(energies, list) or len(energies) != len(names):
        return "energies"
    if not all(map(_are_numbers, energies)):
        return "energies"
    cosines = step.get("cosines")
    if not isinstance(cosines, list) or not all(_is_square(each, len(names)) for each in cosines):
        return "cosines"
    if not _are_numbers(step.get("correction")):
        return "correction"
    return ""


def _is_square(matrix: Any, side: int) -> bool:
    if not isinstance(matrix, list) or len(matrix) != side:
        return False
    return all(_are_numbers(row) and len(row) == side for row in matrix)


def _are_numbers(values: Any) -> bool:
    """Whether all are numbers that can be drawn, or None for one that was not finite."""
    return isinstance(values, list) and all(v is None or _is_number(v) for v in values)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < LARGEST  # false for NaN, too
