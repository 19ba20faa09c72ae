"""Balancers: from the inner products of the tasks to the weights of their combination.

CAGrad: Liu et al., Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS 2021,
    arXiv 2110.14048; the combination Z-Magic uses (method section 5).
PCGrad: Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020, arXiv 2001.06782.
MGDA: Desideri, Multiple-gradient descent algorithm, 2012; min-norm point of the convex hull.
Sum: the independent sum of FreeDoM (Yu et al., ICCV 2023, arXiv 2303.09833).

A balancer never sees the gradients, only their Gram matrix, and treats each sample of a batch
separately.
"""

import torch
from torch import Tensor

__all__ = ["BALANCERS", "balance", "cagrad", "mgda", "pcgrad", "plain_sum"]

# Relative size (to the mean squared norm of the tasks) under which a combination counts as zero.
STATIONARY = 1e-12
# Duality gap, relative to the same scale, at which the simplex search stops. The direction is
# then known to about its root; at 1e-8 the order of the tasks could be seen in it, on some CPUs.
GAP = 1e-10
SEARCH_STEPS = 2000


def balance(gram: Tensor, valid: Tensor, method: str, c: float) -> Tensor:
    """Weights of the combined direction ``d = sum_i weights_i * task_i``.

    Args:
        gram: ``[B, n, n]`` float64 inner products of each sample's tasks.
        valid: ``[B, n]`` bool; a task that is not valid (no gradient, not finite) takes no part.
        method: a key of ``BALANCERS``.
        c: CAGrad's radius, >= 0, 0 is the mean; the other methods ignore it.

    Returns:
        ``[B, n]`` float64, 0 for tasks that are not valid.
    """
    both = valid[:, :, None] & valid[:, None, :]
    gram = torch.where(both, gram, 0.0)
    scale = gram.diagonal(dim1=1, dim2=2).sum(1) / valid.sum(1).clamp_min(1)
    gram = gram / scale.clamp_min(torch.finfo(gram.dtype).tiny)[:, None, None]
    return BALANCERS[method](gram, valid, c)


def plain_sum(gram: Tensor, valid: Tensor, c: float) -> Tensor:
    """Weights of the independent sum, as in FreeDoM: 1 for every valid task."""
    return valid.to(gram)


def cagrad(gram: Tensor, valid: Tensor, c: float) -> Tensor:
    """Weights of CAGrad, whose ``d = (g0 + c |g0| / |g_w| g_w) / (1 + c)``.

    ``g0`` is the mean of the tasks and ``w = argmin over the simplex of <g_w, g0> + c |g0| |g_w|``
    (method section 5). For c < 1 the result stays within ``c |g0|`` of ``g0`` before the division,
    and its smallest inner product with a task is at least that of ``g0``, but can be negative; for
    c >= 1 none is negative, so that to first order no task gets worse.
    A Pareto-stationary set of tasks (``|g_w|`` about 0) returns ``g0``.
    """
    mean = valid.to(gram) / valid.sum(1, keepdim=True).clamp_min(1)
    if c == 0.0 or gram.shape[1] == 1:
        return mean
    linear = _times(gram, mean)
    radius = c * (linear * mean).sum(1).clamp_min(0.0).sqrt()
    w = _simplex_minimum(gram, linear, radius, mean)
    norm = (_times(gram, w) * w).sum(1).clamp_min(0.0).sqrt()
    stationary = norm.square() <= STATIONARY
    ratio = torch.where(stationary, 0.0, radius / norm.clamp_min(STATIONARY))
    combined = (mean + ratio[:, None] * w) / (1.0 + c)
    return torch.where(stationary[:, None], mean, combined)


def mgda(gram: Tensor, valid: Tensor, c: float) -> Tensor:
    """Weights of MGDA: ``d`` is the shortest vector of the tasks' convex hull."""
    mean = valid.to(gram) / valid.sum(1, keepdim=True).clamp_min(1)
    none = torch.zeros_like(mean)
    return _simplex_minimum(gram, none, torch.ones_like(mean[:, 0]), mean)


def pcgrad(gram: Tensor, valid: Tensor, c: float) -> Tensor:
    """Weights of PCGrad: each task loses its part against every task in conflict, then the sum.

    The paper visits the other tasks in random order; here it is their connected order, so that
    the same seed gives the same image.
    """
    n = gram.shape[1]
    rows = torch.eye(n, dtype=gram.dtype).expand(gram.shape[0], n, n).clone()
    squared = gram.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(gram.dtype).tiny)
    for j in range(n):
        inner = (rows @ gram[:, :, j : j + 1]).squeeze(2)  # <row_i, task_j>
        surgery = inner.clamp_max(0.0) / squared[:, j : j + 1]
        surgery[:, j] = 0.0
        rows[:, :, j] -= surgery
    return torch.where(valid, (rows * valid[:, :, None]).sum(1), 0.0)


BALANCERS = {"cagrad": cagrad, "sum": plain_sum, "pcgrad": pcgrad, "mgda": mgda}


def _simplex_minimum(gram: Tensor, linear: Tensor, radius: Tensor, start: Tensor) -> Tensor:
    """Minimize ``<linear, w> + radius * sqrt(w' gram w)`` over the simplex, per sample.

    Pairwise descent: weight moves from the task with the largest partial derivative to the one
    with the smallest, by the exact minimum along that edge; for two tasks one move is the closed
    form of method section 5. Tasks with ``start = 0`` stay out.
    """
    w = start.clone()
    valid = start > 0.0
    rows = torch.arange(len(w))
    for _ in range(SEARCH_STEPS):
        gw = _times(gram, w)
        squared = (gw * w).sum(1).clamp_min(0.0)
        norm = squared.sqrt()
        slope = linear + (radius / norm.clamp_min(STATIONARY))[:, None] * gw
        up = slope.masked_fill(~valid, torch.inf).argmin(1)
        down = slope.masked_fill(w <= 0.0, -torch.inf).argmax(1)
        gap = slope[rows, down] - slope[rows, up]
        moving = (gap > GAP) & (squared > STATIONARY) & valid.any(1)
        if not moving.any():
            break
        cross = gram[rows, up, down]
        t = _edge_minimum(
            linear[rows, up] - linear[rows, down],
            radius,
            gram[rows, up, up] + gram[rows, down, down] - 2.0 * cross,
            gw[rows, up] - gw[rows, down],
            squared,
            w[rows, down],
        )
        t = torch.where(moving, t, 0.0)
        w[rows, up] += t
        w[rows, down] -= t
    return w


def _edge_minimum(
    p: Tensor, radius: Tensor, a: Tensor, b: Tensor, q: Tensor, limit: Tensor
) -> Tensor:
    """argmin over t in [0, limit] of ``p t + radius sqrt(a t^2 + 2 b t + q)``, elementwise."""
    tiny = torch.finfo(p.dtype).tiny
    curved = a > STATIONARY
    a = torch.where(curved, a, 1.0)
    rest = (q - b.square() / a).clamp_min(0.0)
    room = a * (radius.square() * a - p.square())
    inner = -b / a - p * (rest / room.clamp_min(tiny)).sqrt()
    end = torch.where(p > 0.0, 0.0, limit)  # monotone along the edge
    t = torch.where(room > 0.0, inner, end)
    t = torch.where(curved, t, end)
    return torch.minimum(t.clamp_min(0.0), limit)


def _times(gram: Tensor, w: Tensor) -> Tensor:
    return (gram @ w[:, :, None]).squeeze(2)
