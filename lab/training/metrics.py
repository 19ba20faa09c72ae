"""Figures of merit, each from its definition."""

import torch
from torch import Tensor

__all__ = [
    "area_under_curve",
    "confusion",
    "frechet_distance",
    "intersection_over_union",
    "interocular_error",
    "psnr",
    "true_accept_rate",
    "verification_scores",
]

# Outer corners of the eyes in iBUG's 68 points: the inter-ocular distance of the 300-W benchmark
# (Sagonas et al., ICCVW 2013).
OUTER_EYES = (36, 45)


def psnr(picture: Tensor, other: Tensor, where: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures ``[B, 3, H, W]`` in [0, 1]: ``[B]``.

    Args:
        where: ``[B, H, W]``, the pixels that count; NaN for a picture in which there are none.
    """
    error = (picture - other).square().mean(1)  # [B, H, W]
    if where is None:
        return -10.0 * error.flatten(1).mean(1).log10()
    return -10.0 * ((error * where).sum((1, 2)) / where.sum((1, 2))).log10()


def confusion(predicted: Tensor, actual: Tensor, classes: int) -> Tensor:
    """Count how often pixels of each actual class (row) were taken for each class (column)."""
    pairs = actual.long().flatten() * classes + predicted.long().flatten()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def intersection_over_union(counts: Tensor) -> Tensor:
    """Intersection over union of each class, ``[C]``, from a confusion matrix ``[C, C]``.

    It is NaN for a class that never occurs.
    """
    counts = counts.double()
    hits = counts.diagonal()
    return hits / (counts.sum(0) + counts.sum(1) - hits)


def interocular_error(predicted: Tensor, actual: Tensor) -> Tensor:
    """Mean distance of 68 points ``[B, 68, 2]`` in inter-ocular distances: ``[B]``."""
    first, second = (actual[:, corner] for corner in OUTER_EYES)
    return (predicted - actual).norm(dim=2).mean(1) / (first - second).norm(dim=1)


def verification_scores(embeddings: Tensor, people: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of all pairs of pictures: of the same person, of two people."""
    unit = torch.nn.functional.normalize(embeddings.double())
    cosines = unit @ unit.T
    first, second = torch.triu_indices(len(people), len(people), 1)
    same = people[first] == people[second]
    scores = cosines[first, second]
    return scores[same], scores[~same]


def area_under_curve(positive: Tensor, negative: Tensor) -> float:
    """Chance that a positive scores above a negative, ties counted half (Mann and Whitney)."""
    negative = negative.sort().values
    below = torch.searchsorted(negative, positive.contiguous())
    not_above = torch.searchsorted(negative, positive.contiguous(), right=True)
    wins = (below + not_above).double().sum() / 2.0
    return float(wins / (len(positive) * len(negative)))


def true_accept_rate(positive: Tensor, negative: Tensor, false_accepts: float) -> float:
    """Share of positives above the score that only this share of negatives reaches."""
    threshold = torch.quantile(negative.double(), 1.0 - false_accepts)
    return float((positive > threshold).double().mean())


def frechet_distance(features: Tensor, others: Tensor) -> float:
    """Return the Frechet distance of the sets of features ``[N, D]`` and ``[M, D]``.

    The distance is that of their normal distributions:

    ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))``, Heusel et al., "GANs Trained by a Two
    Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017. The trace of the
    root is the sum of the roots of the eigenvalues of ``S1^(1/2) S2 S1^(1/2)``.
    """
    features, others = features.double(), others.double()
    first, second = torch.cov(features.T), torch.cov(others.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp_min(0.0).sqrt() @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0.0).sqrt().sum()
    shift = (features.mean(0) - others.mean(0)).square().sum()
    return float(shift + first.trace() + second.trace() - 2.0 * mixed)
