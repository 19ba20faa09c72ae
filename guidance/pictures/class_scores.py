"""Class scores of a network: logits, or probabilities already.

A network with a softmax at its end must not get a second one: it would flatten every probability.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ClassScores"]

# Largest difference of a sum of probabilities from 1, and of a probability from [0, 1]: rounding.
ROUNDING = 1e-3

# Share of the uniform distribution that is mixed into probabilities before their logarithm is
# taken: a softmax in single precision reaches 0, where the logarithm has no gradient.
MIXED_IN = 1e-5


@dataclass(frozen=True)
class ClassScores:
    """How to read scores ``[B, K, ...]``, classes along axis 1.

    A single score, K = 1, is that of class 1 against class 0, the rest: two classes.

    Attributes:
        classes: the number of classes.
        are_probabilities: whether the network ends in a softmax or sigmoid.
    """

    classes: int
    are_probabilities: bool

    @staticmethod
    def inferred(example: Tensor) -> "ClassScores":
        """Infer both from scores ``[B, K, ...]`` for any picture, such as noise.

        Probabilities of several classes add to 1 everywhere, which logits do not; those of a
        single one lie in [0, 1] everywhere.
        """
        inside = bool(((example >= -ROUNDING) & (example <= 1.0 + ROUNDING)).all())
        if example.shape[1] == 1:
            return ClassScores(2, inside)
        adds = bool(((example.sum(1) - 1.0).abs() <= ROUNDING).all())
        return ClassScores(example.shape[1], inside and adds)

    def probabilities(self, scores: Tensor) -> Tensor:
        """Probabilities ``[B, classes, ...]`` of scores ``[B, K, ...]``."""
        scores = self.complete(scores)
        return scores if self.are_probabilities else scores.softmax(1)

    def log_probabilities(self, scores: Tensor) -> Tensor:
        """Logarithms of the probabilities; given ones are mixed with ``MIXED_IN`` first."""
        scores = self.complete(scores)
        return _mixed(scores).log() if self.are_probabilities else scores.log_softmax(1)

    def complete(self, scores: Tensor) -> Tensor:
        """Scores ``[B, classes, ...]`` of all classes: a single one stands for two."""
        if scores.shape[1] != 1:
            return scores
        rest = 1.0 - scores if self.are_probabilities else torch.zeros_like(scores)
        return torch.cat((rest, scores), dim=1)

    def divergence(self, target: Tensor, scores: Tensor) -> Tensor:
        """Kullback-Leibler divergence ``sum_k T_k (log T_k - log P_k)`` from a target.

        It is the cross-entropy less the target's own entropy: 0 if and only if the probabilities
        are the target's.

        Args:
            target: probabilities of the target, ``[1 or B, classes, ...]``.
            scores: the network's scores ``[B, K, ...]``.

        Returns:
            the divergence ``[B, 1, ...]``, >= 0.
        """
        if self.are_probabilities:  # what is mixed into one is mixed into both
            target = _mixed(target)
        surprise = target * self.log_probabilities(scores)
        return (torch.xlogy(target, target) - surprise).sum(1, keepdim=True)


def _mixed(probabilities: Tensor) -> Tensor:
    """Probabilities with a little of the uniform distribution."""
    return (probabilities + MIXED_IN) / (1.0 + probabilities.shape[1] * MIXED_IN)
