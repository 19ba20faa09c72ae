"""Obedience: how much of what guidance gains for its own network another network sees as well.

    obedience = gain by the evaluator / gain by the guide
    gain = (distance of the unguided picture - distance) / (distance of the unguided picture - real)

where *real* is the distance of a real picture that satisfies the condition, as the same network
sees it: the portrait that a caption was written for, another portrait of the person, the layout's
own. At 1 both networks are pleased alike, at 0 only the one that guided.
"""

from collections.abc import Mapping, Sequence

__all__ = ["LEAST_GAIN", "obedience"]

# A gain of the guide below it is too small to divide by.
LEAST_GAIN = 0.05

Rows = Mapping[int, dict]


def obedience(rows: Rows, unguided: Rows, name: str, sets: Sequence[int]) -> float | None:
    """The obedience of one method in one attribute, over the sets that all networks can see.

    Args:
        rows: what was measured of the method, by condition set.
        unguided: the same without guidance, with the distances of real pictures under ``real``.
        name: the attribute.
        sets: the condition sets that are compared.

    Returns:
        The ratio of the gains; None where the guide gained nothing, or no real picture is known.
    """
    seen = [k for k in sets if _is_seen(rows[k], unguided[k], name)]
    guide, evaluator = (_gain(rows, unguided, role, name, seen) for role in ("guide", "evaluator"))
    if guide is None or evaluator is None or guide < LEAST_GAIN:
        return None
    return evaluator / guide


def _is_seen(row: dict, unguided: dict, name: str) -> bool:
    sources = (row, unguided, unguided.get("real", {}))
    return all(
        source.get(role, {}).get(name) is not None
        for source in sources
        for role in ("guide", "evaluator")
    )


def _gain(rows: Rows, unguided: Rows, role: str, name: str, sets: Sequence[int]) -> float | None:
    start = sum(unguided[k][role][name] for k in sets)
    way = start - sum(unguided[k]["real"][role][name] for k in sets)
    return (start - sum(rows[k][role][name] for k in sets)) / way if way > 0.0 else None
