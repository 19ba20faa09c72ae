"""Which pairs of conditions take part in a step, and which are summed (method sections 3 and 7).

Nothing is evaluated here. A pair ``(i, j)`` is a condition that comes first and one that follows
it. ``ranks [n, B]`` is the place of each condition in the order of each sample; it is the same for
all conditions where every order counts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["candidates", "fixed_ranks", "follows", "groups", "ranks_by"]


def candidates(n: int, order: str) -> dict[int, list[int]]:
    """For each condition that can come first those that can follow it, whatever the sample.

    Args:
        n: the number of conditions, >= 2.
        order: see ``GuidanceSettings``.
    """
    if order == "as_connected":
        return {i: list(range(i + 1, n)) for i in range(n - 1)}
    return {i: [j for j in range(n) if j != i] for i in range(n)}


def fixed_ranks(n: int, order: str, like: Tensor) -> Tensor:
    """The ranks of an order that is known before anything is evaluated.

    Args:
        n: the number of conditions.
        order: see ``GuidanceSettings``.
        like: a tensor ``[n, B]`` on the device of the ranks.
    """
    ranks = torch.zeros_like(like, dtype=torch.long)
    if order == "symmetric":
        return ranks
    return ranks + torch.arange(n, device=like.device)[:, None]


def ranks_by(merit: Tensor) -> Tensor:
    """The ranks ``[n, B]`` of conditions by ``merit [n, B]``, the greatest one first."""
    return merit.argsort(dim=0, descending=True, stable=True).argsort(dim=0)


def follows(ranks: Tensor, valid: Tensor, order: str) -> Tensor:
    """The pairs that count, ``[n, n, B]``: entry ``[i, j, b]`` is pair ``(i, j)`` of sample b.

    Args:
        ranks: the place of each condition in the order, ``[n, B]``.
        valid: bool ``[n, B]``, the conditions that have a gradient to follow.
    """
    behind = ranks[None] > ranks[:, None]  # [n, n, B]
    if order == "symmetric":
        behind = ~_each_alone(len(ranks), valid)
    return behind & valid[None]


def groups(targets: Tensor, wanted: Sequence[int], tasks: str) -> list[Tensor]:
    """The sets of targets ``[n, B]`` of which each makes one task: all together, or one by one.

    Args:
        targets: the conditions that follow one first condition, bool ``[n, B]``.
        wanted: those that can follow it in any sample.
        tasks: see ``GuidanceSettings``.
    """
    if tasks == "rows":
        return [targets]
    alone = _each_alone(len(targets), targets)
    return [alone[j] & targets for j in wanted]


def _each_alone(n: int, like: Tensor) -> Tensor:
    """Sets of one condition each: bool ``[n, n, 1]``."""
    return torch.eye(n, dtype=torch.bool, device=like.device)[..., None]
