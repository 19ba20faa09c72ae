"""Best of N: how many pictures are made for the operations of another method, and which is kept.

The pictures are chosen by the networks that guide the other methods. Evaluators see the chosen one
alone.
"""

from collections.abc import Mapping, Sequence

from zmagic.guidance.ranking import best_first, scores

__all__ = ["best_candidates", "candidates_for"]

# One value for each picture of a batch.
Energies = Sequence[float]


def best_candidates(tries: Sequence[Mapping[str, Energies]]) -> list[int]:
    """The place of the best try, for each picture of a batch.

    By the scores by which Keep Best and ``candidates`` choose, of conditions of one weight. Equal
    ones leave it to the first.

    Args:
        tries: for each try the energies by condition.
    """
    names = list(tries[0])
    weights = dict.fromkeys(names, 1.0)
    pictures = range(len(tries[0][names[0]]))
    return [
        best_first(scores({name: [each[name][k] for each in tries] for name in names}, weights))[0]
        for k in pictures
    ]


def candidates_for(operations: float, one: float, choosing: float) -> int:
    """How many pictures take about as many operations as another method, at least 1.

    Args:
        operations: those of the other method, in plain pictures.
        one: those of one candidate.
        choosing: those of measuring one candidate.
    """
    return max(1, round(operations / (one + choosing)))
