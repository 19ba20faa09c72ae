"""From the store to figures: strengths, tables, comparisons with the baseline."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from .methods import UNGUIDED
from .obedience import obedience
from .results import Store, markdown
from .statistics import (
    Projection,
    paired_interval,
    set_ranks,
    win_rate,
    win_rate_on_all,
)
from .tasks import OF_THE_FACE

# isort: split
from zmagic.lab.training.metrics import frechet_distance

__all__ = [
    "Rows",
    "Summary",
    "found_rows",
    "mean",
    "overview",
    "rank_in_sets",
    "rows_of",
    "summarize",
    "tables",
]

# Directions of the Frechet distance: well below the number of pictures, so that covariances have
# full rank.
COMPONENTS = 16

# Strength and number of a condition set to what was measured.
Rows = Mapping[int, dict]


def rows_of(store: Store, stage: str, task: str, method: str, strength: float) -> dict[int, dict]:
    """Return what was measured of one method, by the number of the condition set."""
    wanted = (stage, task, method, strength)
    return {
        run.number: store[run]
        for run in store
        if (run.stage, run.task, run.method, run.strength) == wanted
    }


@dataclass(frozen=True)
class Summary:
    """One row of a table.

    Args:
        method, strength: the row's method, and the strength of its guidance.
        guide, evaluator: mean distance by attribute, as the attribute network and as the evaluator
            see it.
        difference: by attribute, how far the evaluator's distance is above the baseline's: mean,
            and the ends of its interval; negative is better.
        wins: by attribute, share of sets in which the evaluator prefers it to the baseline; without
            a face there is no identity and no landmark, and nothing is won.
        wins_on_all: share of sets in which it does so in every attribute.
        rank: mean over sets and attributes of the rank among all methods, by the evaluators;
            without a face identity and landmarks share the last rank.
        rank_difference: how far that rank is above the baseline's: mean, and the ends of its
            interval over the sets; negative is better.
        faces: share of pictures in which dlib's detector finds a face.
        frechet: Frechet distance to the held-out portraits; None without features.
        obedience: by attribute, the gain of the evaluator over that of the guide; None where the
            guide gained nothing, or nothing is known of unguided and real pictures.
        operations: those of one picture, in plain pictures; None if they were not counted.
        seconds, forwards, backwards: time and evaluations of the model for one picture.
        sets: how many condition sets were measured.
    """

    method: str
    strength: float
    guide: Mapping[str, float]
    evaluator: Mapping[str, float]
    difference: Mapping[str, tuple[float, float, float]]
    wins: Mapping[str, float]
    wins_on_all: float
    rank: float
    rank_difference: tuple[float, float, float]
    faces: float
    frechet: float | None
    obedience: Mapping[str, float | None]
    operations: float | None
    seconds: float
    forwards: float
    backwards: float
    sets: int


def summarize(
    found: Mapping[str, tuple[float, Rows]], baseline: str, reference: torch.Tensor | None
) -> list[Summary]:
    """Rows of one table, each method on the same sets.

    Args:
        found: method to its strength and what was measured.
        baseline: the method that the others are compared with.
        reference: features of real portraits, ``[M, D]``.
    """
    sets = sorted(set.intersection(*(set(rows) for _, rows in found.values())))
    names = list(next(iter(found[baseline][1].values()))["evaluator"])
    each = {method: rows for method, (_, rows) in found.items()}
    seen = _seen_by_all(each)
    counted = _counted(each)
    ranks = _ranks(counted)
    projection = None if reference is None else Projection(reference, COMPONENTS)
    summaries = []
    for method, (strength, rows) in found.items():
        kept = [rows[k] for k in sets]
        mine, other = (
            {name: [each[which][k]["evaluator"][name] for k in seen] for name in names}
            for which in (method, baseline)
        )
        summaries.append(
            Summary(
                method=method,
                strength=strength,
                guide={name: mean(row["guide"][name] for row in kept) for name in names},
                evaluator={name: mean(mine[name]) for name in names},
                difference={name: _difference(mine[name], other[name]) for name in names},
                wins={
                    name: win_rate(counted[method][name], counted[baseline][name]) for name in names
                },
                wins_on_all=win_rate_on_all(counted[method], counted[baseline]),
                rank=mean(ranks[method]),
                rank_difference=_difference(ranks[method], ranks[baseline]),
                faces=mean(row["face"] for row in kept),
                frechet=_frechet(kept, reference, projection),
                obedience={
                    name: obedience(rows, each.get(UNGUIDED, rows), name, sets) for name in names
                },
                operations=_operations(kept),
                seconds=mean(row["seconds"] for row in kept),
                forwards=mean(row["forwards"] for row in kept),
                backwards=mean(row["backwards"] for row in kept),
                sets=len(sets),
            )
        )
    return summaries


def tables(
    title: str,
    summaries: Sequence[Summary],
    baseline: str,
    candidates: Mapping[str, int] | None = None,
) -> str:
    """Two Markdown tables: distances and cost; the comparison with the baseline.

    Args:
        title: what the tables are of.
        summaries: their rows.
        baseline: the row that the others are compared with.
        candidates: method to the number of pictures of which it keeps the best.
    """
    counts = candidates or {}
    names = list(summaries[0].evaluator)
    distances = markdown(
        ["", "strength", *(f"{name}: guide / evaluator" for name in names)]
        + ["faces", "Frechet", "s / picture", "model F + B", "operations"],
        (
            [
                f"{s.method} (N = {counts[s.method]})" if s.method in counts else s.method,
                f"{s.strength:g}",
                *(f"{s.guide[name]:.3g} / {s.evaluator[name]:.3g}" for name in names),
                f"{s.faces:.0%}",
                s.frechet,
                s.seconds,
                f"{s.forwards:g} + {s.backwards:g}",
                s.operations,
            ]
            for s in summaries
        ),
    )
    compared = markdown(
        ["", *(f"{name}: difference [95 %], wins, obedience" for name in names)]
        + ["wins on all", "mean rank", "rank: difference [95 %]", "operations"],
        (
            [
                s.method,
                *(_compared(s, name) for name in names),
                f"{s.wins_on_all:.0%}",
                s.rank,
                _interval(s.rank_difference),
                s.operations,
            ]
            for s in summaries
            if s.method != baseline
        ),
    )
    return (
        f"### {title} ({summaries[0].sets} condition sets)\n\n{distances}\n"
        f"Against {baseline}, by the evaluator:\n\n{compared}"
    )


def overview(by_task: Mapping[str, Sequence[Summary]], baseline: str) -> str:
    """One Markdown table of all tasks: mean ranks by the evaluators, operations and time.

    Args:
        by_task: name of the task to the rows of its table.
    """
    found = {task: {s.method: s for s in summaries} for task, summaries in by_task.items()}
    methods = dict.fromkeys(method for rows in found.values() for method in rows)
    return markdown(
        ["mean rank by the evaluators, and its difference [95 %]", *found, "operations", "time"],
        (
            [
                method,
                *(_rank(rows.get(method), baseline) for rows in found.values()),
                _mean_of_known(
                    rows[method].operations for rows in found.values() if method in rows
                ),
                mean(
                    rows[method].seconds / rows[baseline].seconds
                    for rows in found.values()
                    if method in rows
                ),
            ]
            for method in methods
        ),
    )


def found_rows(
    store: Store, stage: str, task: str, strengths: Mapping[str, float]
) -> dict[str, tuple[float, Rows]]:
    """Return what ``summarize`` takes, of the methods that were measured."""
    found = {
        name: (strength, rows_of(store, stage, task, name, strength))
        for name, strength in strengths.items()
    }
    return {name: pair for name, pair in found.items() if pair[1]}


def _seen_by_all(found: Mapping[Hashable, Rows]) -> list[int]:
    """The sets that all have, without those whose reference an evaluator cannot see."""
    return [
        k
        for k in sorted(set.intersection(*map(set, found.values())))
        if all(v is not None for rows in found.values() for v in rows[k]["evaluator"].values())
    ]


def _counted(found: Mapping[Hashable, Rows]) -> dict[Hashable, dict[str, list[float]]]:
    """The evaluator's distances by attribute; infinite for a face that is not there.

    A network for faces sees one everywhere. A picture broken so far that a detector finds none is
    nobody's likeness, however near its embedding is.
    """
    seen = _seen_by_all(found)
    names = next(iter(next(iter(found.values())).values()))["evaluator"]

    def distance(row: dict, name: str) -> float:
        return math.inf if name in OF_THE_FACE and not row["face"] else row["evaluator"][name]

    return {
        key: {name: [distance(rows[k], name) for k in seen] for name in names}
        for key, rows in found.items()
    }


def rank_in_sets(found: Mapping[Hashable, Rows]) -> dict[Hashable, list[float]]:
    """The rank of each among all in each set, the mean over the attributes, by the evaluators."""
    return _ranks(_counted(found))


def _ranks(counted: Mapping[Hashable, Mapping[str, Sequence[float]]]) -> dict:
    """Its rank in each set, the mean over the attributes."""
    by_attribute = [
        set_ranks({key: values[name] for key, values in counted.items()})
        for name in next(iter(counted.values()))
    ]
    return {
        key: [mean(each) for each in zip(*(r[key] for r in by_attribute), strict=True)]
        for key in counted
    }


def _rank(summary: Summary | None, baseline: str) -> str | None:
    if summary is None:
        return None
    if summary.method == baseline:
        return f"{summary.rank:.3g}"
    return f"{summary.rank:.3g} ({_interval(summary.rank_difference)})"


def _compared(summary: Summary, name: str) -> str:
    """Difference, wins and obedience of one attribute in one cell."""
    ratio = summary.obedience[name]
    known = "" if ratio is None else f", {ratio:.2f}"
    return f"{_interval(summary.difference[name])}, {summary.wins[name]:.0%}{known}"


def _operations(rows: Sequence[dict]) -> float | None:
    return _mean_of_known(row.get("operations") for row in rows)


def _mean_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _interval(difference: tuple[float, float, float]) -> str:
    mean, low, high = difference
    return f"{mean:+.3g} [{low:+.3g}, {high:+.3g}]"


def _difference(values: Sequence[float], baseline: Sequence[float]) -> tuple[float, float, float]:
    differences = [a - b for a, b in zip(values, baseline, strict=True)]
    return (mean(differences), *paired_interval(differences))


def _frechet(rows: Sequence[dict], reference, projection: Projection | None) -> float | None:
    if projection is None or any("features" not in row for row in rows) or len(rows) < 2:
        return None
    features = torch.tensor([row["features"] for row in rows])
    return frechet_distance(projection(features), projection(reference))


def mean(values: Iterable[float]) -> float:
    """The mean, NaN of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else float("nan")
