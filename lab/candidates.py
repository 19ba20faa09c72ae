"""Best of N: how many pictures are made for the operations of another method, and which is kept.

The pictures are chosen by the networks that guide the other methods. Evaluators see the chosen one
alone.
"""

from collections.abc import Mapping, Sequence

__all__ = ["best_candidates", "candidates_for"]

# One value for each picture of a batch.
Energies = Sequence[float]


def best_candidates(tries: Sequence[Mapping[str, Energies]]) -> list[int]:
    """The place of the best try, for each picture of a batch.

    Energies of different conditions have different units: each is divided by its mean over the
    tries of that picture, and the smallest sum wins. Equal ones leave it to the first.

    Args:
        tries: for each try the energies by condition.
    """
    pictures = range(len(next(iter(tries[0].values()))))
    return [_best([{name: e[k] for name, e in each.items()} for each in tries]) for k in pictures]


def _best(tries: Sequence[Mapping[str, float]]) -> int:
    means = {name: sum(each[name] for each in tries) / len(tries) for name in tries[0]}
    sums = [sum(each[name] / mean for name, mean in means.items() if mean) for each in tries]
    return min(range(len(tries)), key=sums.__getitem__)


def candidates_for(operations: float, one: float, choosing: float) -> int:
    """How many pictures take about as many operations as another method, at least 1.

    Args:
        operations: those of the other method, in plain pictures.
        one: those of one candidate.
        choosing: those of measuring one candidate.
    """
    return max(1, round(operations / (one + choosing)))
