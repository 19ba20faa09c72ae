"""Conditions that are satisfied: below a value of their energy there is nothing to gain.

What guidance still takes away from an energy that is lower than that of real pictures are artifacts
made for the network. A satisfied condition is no task of the look; the others go on as if it were
not there. Each picture of a batch has its own.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .conditions import Condition
from .transfers import fetched
from .unseen import unseen

__all__ = ["can_be_satisfied", "satisfied"]


def can_be_satisfied(conditions: Sequence[Condition]) -> bool:
    """Whether one of the conditions has an energy at which it stops to pull."""
    return any(condition.satisfied_at is not None for condition in conditions)


def satisfied(conditions: Sequence[Condition], energies: Sequence[Tensor]) -> Tensor:
    """Which conditions are satisfied at this look, in which pictures: bool ``[n, B]`` on the CPU.

    An energy that is not finite satisfies nothing, nor does one of what was not seen.

    Args:
        conditions: the n conditions.
        energies: one ``[B]`` for each. They are fetched from their device if a condition can be
            satisfied at all; else nothing waits.
    """
    if not can_be_satisfied(conditions):
        return torch.zeros(len(conditions), len(energies[0]), dtype=torch.bool, device="cpu")
    limits = [-math.inf if c.satisfied_at is None else c.satisfied_at for c in conditions]
    (values,) = fetched([torch.stack(list(energies))])
    below = values.double() < torch.tensor(limits, dtype=torch.float64, device="cpu")[:, None]
    hidden = [unseen(condition, values.shape[1]) for condition in conditions]
    return below & ~torch.tensor(hidden, device="cpu")
