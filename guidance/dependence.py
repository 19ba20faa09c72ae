"""Pair gradients: the second condition's gradient where the first has already moved the image.

    grad log p(c_i, c_j | x) = g_i(x) + (I + k H_i) g_j(x_i),   x_i = x + k g_i(x)

(method sections 2, 3 and 7). ``u`` stands for x, the predicted latent or the image, depending on
the gradient path.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .evaluation import EnergyField, Evaluation
from .norms import expand_like, rms
from .pairs import candidates, fixed_ranks, follows, groups, ranks_by
from .transfers import made_at

__all__ = ["ConditionGradients", "Tasks", "condition_gradients", "dependent_tasks"]


@dataclass(frozen=True)
class ConditionGradients:
    """``g_i = -lambda_i grad E_i`` at one point; lambda is frozen for the whole step.

    Args:
        vectors: the n gradients ``g_i``, tensors like u.
        scales: ``lambda`` as ``[n, B]``; 0 where a condition has no gradient to follow.
        finite: ``[n, B]``; False where the gradient is not finite. Where it is finite and the
            scale is 0, the gradient is 0.
    """

    vectors: list[Tensor]
    scales: Tensor
    finite: Tensor

    @property
    def valid(self) -> Tensor:
        """Which conditions have a gradient to follow, bool ``[n, B]``."""
        return self.scales > 0.0

    def spread(self, which: Sequence[int], n: int, like: Tensor) -> "ConditionGradients":
        """The same of ``n`` conditions, of which these are ``which``; the others' are 0.

        Args:
            like: the variable u.
        """
        places = {j: k for k, j in enumerate(which)}
        nothing, none = torch.zeros_like(like), torch.zeros_like(rms(like))
        return ConditionGradients(
            [self.vectors[places[j]] if j in places else nothing for j in range(n)],
            torch.stack([self.scales[places[j]] if j in places else none for j in range(n)]),
            torch.stack([self.finite[places[j]] if j in places else none == 0 for j in range(n)]),
        )


@dataclass(frozen=True)
class Tasks:
    """What the balancer combines: ``vectors`` are T tensors like u, ``valid`` is ``[B, T]``;
    ``ranks [n, B]`` tells each condition's place in the order, all 0 if symmetric."""

    vectors: list[Tensor]
    valid: Tensor
    ranks: Tensor


def condition_gradients(
    point: Evaluation, weights: Sequence[float], satisfied: Tensor | None = None
) -> ConditionGradients:
    """Independent gradients at ``point``, each scaled to RMS ``w_i`` per sample.

    Args:
        satisfied: where there is no gradient to follow, bool ``[n, B]`` on the CPU; None: nowhere.
    """
    vectors, scales, finite = [], [], []
    for j, weight in enumerate(weights):
        one = torch.ones_like(point.energies[j])
        gradient = point.gradient({j: one})
        size = rms(gradient.detach())
        usable = torch.isfinite(size) & (size > torch.finfo(size.dtype).tiny)
        usable &= torch.isfinite(weight / size)
        asked = None
        if satisfied is not None and satisfied[j].any():
            asked = made_at(~satisfied[j], size) > 0.0
            usable &= asked
        scale = torch.where(usable, weight / size, 0.0)
        keep = expand_like(usable, gradient) > 0
        vectors.append(torch.where(keep, -expand_like(scale, gradient) * gradient, 0.0))
        scales.append(scale)
        is_finite = torch.isfinite(size)
        finite.append(is_finite if asked is None else is_finite | ~asked)
    return ConditionGradients(vectors, torch.stack(scales), torch.stack(finite))


def dependent_tasks(
    field: EnergyField,
    point: Evaluation,
    gradients: ConditionGradients,
    *,
    dependence: str,
    tasks: str,
    order: str,
    look_ahead: float,
) -> Tasks:
    """Evaluate the task vectors of one guided step.

    Args:
        field, point, gradients: the energies, their evaluation at u, and ``g_i(u)``.
        dependence, tasks, order: see ``GuidanceSettings``.
        look_ahead: the length k of the look-ahead, in units of u.
    """
    valid = gradients.valid
    n = len(valid)
    own = [g.detach() for g in gradients.vectors]
    if n == 1 or dependence == "off":
        return Tasks(own, valid.T, fixed_ranks(n, "symmetric", valid))

    if dependence != "exact":
        point.release()
    kind = _Mutual if dependence == "mutual" else _Chain
    chain = kind(field, point, gradients, dependence, look_ahead)
    targets = candidates(n, order)
    looked: dict[int, Evaluation] = {}
    if order == "auto":  # the order is known only when all look-aheads are
        looked = {i: chain.look_ahead(i, targets[i]) for i in targets}
        ranks = ranks_by(_help(point, looked.values(), gradients.scales))
    else:
        ranks = fixed_ranks(n, order, valid)
    pairs = follows(ranks, valid, order)  # [n, n, B]

    vectors, valids = [], []
    for i in targets:
        parts = groups(pairs[i], targets[i], tasks)
        vectors += chain.tasks(i, looked.pop(i, None), targets[i], parts)
        valids += [valid[i] & part.any(0) for part in parts]
    # A sample in which at most one condition has a gradient has no pair: it keeps what it has, in
    # the place of the first task; the others are not valid there.
    alone = valid.sum(0) < 2
    vectors[0] = torch.where(expand_like(alone, vectors[0]) > 0, sum(own), vectors[0])
    valids[0] = torch.where(alone, valid.any(0), valids[0])
    return Tasks(vectors, torch.stack(valids, dim=1), ranks)


@dataclass(frozen=True)
class _Chain:
    """Evaluates pair gradients, or sums of pairs that share their first condition."""

    field: EnergyField
    point: Evaluation
    gradients: ConditionGradients
    dependence: str
    k: float

    def look_ahead(self, i: int, targets: Sequence[int]) -> Evaluation:
        """The targets' energies at ``u_i = u + k g_i(u)``."""
        return self.field.at(self.point.u + self.k * self.gradients.vectors[i].detach(), targets)

    def tasks(
        self,
        i: int,
        ahead: Evaluation | None,
        targets: Sequence[int],
        parts: Sequence[Tensor],
    ) -> list[Tensor]:
        """The tasks of the pairs that begin with condition i, one for each part of its targets.

        Args:
            i: the condition that comes first.
            ahead: its look-ahead, if it has been evaluated.
            targets: the conditions that can follow it in any sample.
            parts: those that follow it in one task, bool ``[n, B]`` each.
        """
        # The look-ahead's graph ends with this line, before another one is built.
        sums = self.sums(ahead or self.look_ahead(i, targets), parts)
        return [self.task(i, v, part) for v, part in zip(sums, parts, strict=True)]

    def sums(self, ahead: Evaluation, parts: Sequence[Tensor]) -> list[Tensor]:
        """For each part of the targets ``[n, B]`` ``V = sum_j g_j(u_i)``, by one backward each."""
        scales = self.gradients.scales
        return [
            ahead.gradient({j: -scales[j] * part[j] for j in ahead.energies}).detach()
            for part in parts
        ]

    def task(self, i: int, v: Tensor, targets: Tensor) -> Tensor:
        """Sum over the ``m`` targets j of ``g_i(u) + (I + k H_i) g_j(u_i)``.

        With ``v = V = sum_j g_j(u_i)`` one product serves all of them: exact by linearity.
        In finite-difference form ``k H_i V = g_i(u + k V) - g_i(u) + O(k^2)``, so that the sum
        is ``(m - 1) g_i(u) + V + g_i(u + k V)``, without a difference of near-equal numbers.
        """
        g = self.gradients.vectors[i]
        m = expand_like(targets.sum(0), v)
        if self.dependence == "first_order":
            return m * g.detach() + v
        if self.dependence == "exact":
            return m * g.detach() + v + self.k * self.point.hessian_product(g, v)
        behind = self.field.at(self.point.u + self.k * v, [i])
        return (m - 1) * g.detach() + v + behind.gradient({i: -self.gradients.scales[i]}).detach()


@dataclass(frozen=True)
class _Mutual(_Chain):
    """Evaluates pairs from their two look-aheads alone: ``g_j(u_i) + g_i(u_j)``.

    To first order in k the product of a pair is the other look-ahead's: ``k H_i g_j(u_i)`` is
    ``g_i(u_j) - g_i(u) + O(k^2)``, with ``u_j = u + k g_j(u)``.
    """

    # Condition i to the gradients ``g_j(u_i)`` of the others.
    seen: dict[int, dict[int, Tensor]] = dataclasses.field(default_factory=dict)

    def look_ahead(self, i: int, targets: Sequence[int]) -> Evaluation:
        """As of a chain, to all other conditions: each pair needs both of its look-aheads."""
        others = [j for j in range(len(self.gradients.vectors)) if j != i]
        ahead = super().look_ahead(i, others)
        scales = self.gradients.scales
        self.seen[i] = {j: ahead.gradient({j: -scales[j]}).detach() for j in others}
        ahead.release()
        return ahead

    def tasks(
        self,
        i: int,
        ahead: Evaluation | None,
        targets: Sequence[int],
        parts: Sequence[Tensor],
    ) -> list[Tensor]:
        for j in (i, *targets):
            if j not in self.seen:
                self.look_ahead(j, targets)
        return [self._sum(i, targets, part) for part in parts]

    def _sum(self, i: int, targets: Sequence[int], part: Tensor) -> Tensor:
        total = torch.zeros_like(self.point.u)
        for j in targets:
            pair = self.seen[i][j] + self.seen[j][i]
            total = total + torch.where(expand_like(part[j], pair) > 0, pair, 0.0)
        return total


def _help(point: Evaluation, ahead: Iterable[Evaluation], scales: Tensor) -> Tensor:
    """How much each condition's look-ahead lowers the others, ``[n, B]`` (method section 7).

    That of i is ``sum_j lambda_j (E_j(u) - E_j(u_i))`` over the others.
    """
    return torch.stack(
        [
            sum(
                (
                    torch.where(
                        scales[j] > 0.0,
                        scales[j] * (point.energies[j] - evaluation.energies[j]).detach(),
                        0.0,
                    )
                    for j in evaluation.energies
                ),
                start=torch.zeros_like(scales[0]),
            )
            for evaluation in ahead
        ]
    )
