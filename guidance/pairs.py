"""Which pairs of conditions take part in a step, and which are summed (method sections 3 and 7).

Nothing is evaluated here. A pair ``(i, j)`` is a condition that comes first and one that follows
it. ``ranks [n, B]`` is the place of each condition in the order of each sample; it is the same for
all conditions where every order counts.
"""

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


def fixed_ranks(n: int, batch: int, order: str) -> Tensor:
    """The ranks ``[n, B]`` of an order that is known before anything is evaluated."""
    if order == "symmetric":
        return torch.zeros(n, batch, dtype=torch.long)
    return torch.arange(n)[:, None].expand(n, batch)


def ranks_by(merit: Tensor) -> Tensor:
    """The ranks ``[n, B]`` of conditions by ``merit [n, B]``, the greatest one first."""
    return merit.argsort(dim=0, descending=True, stable=True).argsort(dim=0).cpu()


def follows(ranks: Tensor, valid: Tensor, order: str) -> Tensor:
    """The pairs that count, ``[n, n, B]``: entry ``[i, j, b]`` is pair ``(i, j)`` of sample b.

    Args:
        ranks: the place of each condition in the order, ``[n, B]``, on the CPU.
        valid: bool ``[n, B]``, the conditions that have a gradient to follow.
    """
    n = len(ranks)
    behind = ranks[None] > ranks[:, None]  # [n, n, B]
    if order == "symmetric":
        behind = ~torch.eye(n, dtype=torch.bool)[..., None]
    return behind.to(valid.device) & valid[None]


def groups(targets: Tensor, tasks: str) -> list[Tensor]:
    """The sets of targets ``[n, B]`` of which each makes one task: all together, or one by one.

    Args:
        targets: the conditions that follow one first condition, bool ``[n, B]``.
        tasks: see ``GuidanceSettings``.
    """
    if tasks == "rows":
        return [targets] if targets.any() else []
    alone = torch.eye(len(targets), dtype=torch.bool, device=targets.device)[..., None] & targets
    return [each for each in alone if each.any()]
