"""Paired comparisons of methods on the same condition sets."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = [
    "Projection",
    "paired_interval",
    "set_ranks",
    "win_rate",
    "win_rate_on_all",
]

LEVEL = 0.95
RESAMPLES = 2000


def paired_interval(
    differences: Sequence[float], level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the mean of paired differences (Efron's percentile interval).

    Args:
        differences: one number for each condition set.
        level: how often such an interval contains the true mean, in (0, 1).
        seed: seed of the resampling, so that a table can be made again.

    Returns:
        The lower and the upper end; both NaN without differences.
    """
    if not len(differences):
        return (float("nan"), float("nan"))
    values = torch.tensor(differences, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(values), (resamples, len(values)), generator=generator)
    ends = torch.tensor([(1.0 - level) / 2.0, (1.0 + level) / 2.0], dtype=torch.float64)
    low, high = values[drawn].mean(1).quantile(ends).tolist()
    return (low, high)


def win_rate(values: Sequence[float], baseline: Sequence[float]) -> float:
    """Share of the sets in which ``values`` is lower than ``baseline``; a tie is half a win."""
    return _share([_score(a, b) for a, b in zip(values, baseline, strict=True)])


def win_rate_on_all(
    values: Mapping[str, Sequence[float]], baseline: Mapping[str, Sequence[float]]
) -> float:
    """Share of the sets in which every attribute is lower than the baseline's."""
    sets = zip(*(zip(values[name], baseline[name], strict=True) for name in values), strict=True)
    return _share([float(all(a < b for a, b in pairs)) for pairs in sets])


def set_ranks(values: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Rank of each method in each set: 1 is best, equal values share their ranks.

    Args:
        values: method to one value for each set, lower is better.
    """
    table = torch.tensor(list(values.values()), dtype=torch.float64)  # [methods, sets]
    lower = (table[None] < table[:, None]).sum(1)
    equal = (table[None] == table[:, None]).sum(1)  # itself included
    ranks = lower + (equal + 1) / 2.0
    return dict(zip(values, ranks.tolist(), strict=True))


class Projection:
    """The principal components of reference features.

    A covariance of N pictures has rank N - 1: the Frechet distance of few pictures is taken in the
    directions in which the references vary most.

    Args:
        reference: ``[M, D]`` features.
        components: how many are kept, at most D and M - 1.
    """

    def __init__(self, reference: Tensor, components: int):
        reference = reference.double()
        self.mean = reference.mean(0)
        _, _, directions = torch.linalg.svd(reference - self.mean, full_matrices=False)
        kept = min(components, reference.shape[1], len(reference) - 1)
        self.directions = directions[:kept]  # [K, D]

    def __call__(self, features: Tensor) -> Tensor:
        """``[N, D]`` to ``[N, K]``."""
        return (features.double() - self.mean) @ self.directions.T


def _score(value: float, baseline: float) -> float:
    return 0.5 if value == baseline else float(value < baseline)


def _share(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores) if scores else float("nan")
