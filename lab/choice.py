"""The strength of every method: tried on a grid that grows until the best is inside of it."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from .methods import PLAIN, TUNED_AS, UNGUIDED, of_equal_cost
from .report import mean, rank_in_sets, rows_of
from .results import Store

__all__ = ["STRONGEST", "WEAKEST", "Choice", "choose", "next_strengths"]

# How far the grid of strengths grows.
WEAKEST, STRONGEST = 0.0125, 6.4


@dataclass(frozen=True)
class Choice:
    """The strength of every method of one task.

    Args:
        strengths: method to strength; of the ways of equal cost only the better one.
        scores: method to the mean rank at each strength, among all that was tried.
    """

    strengths: Mapping[str, float]
    scores: Mapping[str, Mapping[float, float]] = field(default_factory=dict)


def choose(store: Store, task: str, names: Sequence[str], strengths: Sequence[float]) -> Choice:
    """Choose for each method the strength at which its pictures rank best by the evaluators.

    Evaluators do not guide, and these are not the people of the tables: a strength that suits only
    the attribute network loses. Without a tuning all have the first strength.

    Args:
        store: what was measured.
        task: name of the task.
        names: the methods.
        strengths: the grid that the tuning begins with.
    """
    ways = of_equal_cost(names)
    plain = {name: 0.0 for name in names if name in PLAIN}
    if not rows_of(store, "tune", task, UNGUIDED, 0.0):
        kept = [name for name in names if name not in ways[1:]]
        return Choice({name: strengths[0] for name in kept} | plain)
    guided = [name for name in names if name not in {*PLAIN, *TUNED_AS}]
    tried: dict[Hashable, dict[int, dict]] = {
        (name, strength): rows_of(store, "tune", task, name, strength)
        for name in guided
        for strength in _tried(store, task, name) or strengths
    }
    ranks = rank_in_sets(tried)
    scores: dict[str, dict[float, float]] = {name: {} for name in guided}
    for (name, strength), found in ranks.items():
        scores[name][strength] = mean(found)
    best = {name: min(found, key=found.__getitem__) for name, found in scores.items()}
    better = min(ways, key=lambda name: scores[name][best[name]], default=None)
    kept = {n: strength for n, strength in best.items() if n not in ways or n == better}
    same = {name: best[TUNED_AS[name]] for name in names if name in TUNED_AS}
    return Choice({**plain, **kept, **same}, scores)


def next_strengths(
    scores: Mapping[str, Mapping[float, float]], strongest: Mapping[str, float] | None = None
) -> dict[str, float]:
    """What to try next: twice or half the best strength of a method whose best is at an end.

    Args:
        scores: method to the mean rank at each strength that was tried.
        strongest: method to the largest strength that it takes; without: any up to ``STRONGEST``.
    """
    found = {}
    for name, tried in scores.items():
        best = min(tried, key=tried.__getitem__)
        most = min(STRONGEST, (strongest or {}).get(name, STRONGEST))
        if len(tried) < 2:
            continue
        if best == max(tried) and best < most:
            found[name] = min(2.0 * best, most)
        elif best == min(tried) and 0.5 * best >= WEAKEST:
            found[name] = 0.5 * best
    return found


def _tried(store: Store, task: str, name: str) -> list[float]:
    runs = (run for run in store if (run.stage, run.task, run.method) == ("tune", task, name))
    return sorted({run.strength for run in runs})
