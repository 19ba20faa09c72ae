"""What a condition is about may not be in a picture: its energy there is no measure of anything.

The energy of an empty region is 0 or some constant, and that of a face which nobody found is one of
whatever lies where the face is assumed. Both look like the best of all pictures, or like one that
is good enough. While a run guides it goes on as if nothing were there, or at the assumed place.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .conditions import Condition
from .transfers import made_at

__all__ = ["due_looks", "measured", "seen_alone", "unseen"]


def unseen(condition: Condition, pictures: int) -> list[bool]:
    """In which of so many pictures the last look did not see what the condition is about."""
    parts = [getattr(part, "unseen", []) for part in (condition.energy, condition.region)]
    flags = (_empty(condition, pictures), *(_each(part, pictures) for part in parts))
    return [any(each) for each in zip(*flags, strict=True)]


def measured(conditions: Sequence[Condition], energies: Sequence[Tensor]) -> list[Tensor]:
    """The energies ``[B]`` of pictures that are chosen from, or finished: NaN where unseen."""
    return [
        _without(energy, unseen(condition, len(energy)))
        for condition, energy in zip(conditions, energies, strict=True)
    ]


def seen_alone(conditions: Sequence[Condition], energies: Sequence[Tensor]) -> list[Tensor]:
    """The energies ``[B]`` of a step that guides: NaN where the region is empty.

    Where a face is only assumed, guidance follows the energy of that place until there is one; a
    region that was lost stays where it was seen last.
    """
    return [
        _without(energy, _empty(condition, len(energy)))
        for condition, energy in zip(conditions, energies, strict=True)
    ]


def due_looks(conditions: Sequence[Condition], pictures: int) -> tuple[int, ...]:
    """At how many of so many pictures each condition's next call looks for something."""
    parts: list[Any] = [part for c in conditions for part in (c.region, c.energy)]
    return tuple(part.due(pictures) if hasattr(part, "due") else 0 for part in parts)


def _empty(condition: Condition, pictures: int) -> list[bool]:
    """In which pictures the region is empty."""
    if not isinstance(condition.region, Tensor):
        return _each(getattr(condition.region, "empty", []), pictures)
    empty = (condition.region <= 0.0).flatten(1).all(1)
    return _each(empty.tolist(), pictures)


def _each(flags: Sequence[bool], pictures: int) -> list[bool]:
    """One for each picture of what is known of each, of all, or of none."""
    if len(flags) == pictures:
        return list(flags)
    return list(flags) * pictures if len(flags) == 1 else [False] * pictures


def _without(energy: Tensor, hidden: Sequence[bool]) -> Tensor:
    if not any(hidden):
        return energy
    return torch.where(made_at(torch.tensor(hidden, device="cpu"), energy) > 0.0, math.nan, energy)
