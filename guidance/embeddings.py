"""Distances between the directions of embeddings, which CLIP's two towers are trained on."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .transfers import Constant

__all__ = ["Targets", "unit"]


def unit(embeddings: Tensor) -> Tensor:
    """``[..., D]`` divided by their length, in single precision or better."""
    if embeddings.dtype != torch.float64:
        embeddings = embeddings.float()
    return F.normalize(embeddings, dim=-1)


class Targets:
    """Embeddings whose directions an embedding is to take, or to avoid.

        E(e) = sum_p |w_p| (1 - sign(w_p) cos(e, t_p)) / sum_p |w_p|

    The energy is between 0 and 2; with one target of positive weight it is 1 - cosine.

    Args:
        embeddings: ``[P, D]`` of any length, for all pictures, or ``[B, P, D]``, for each its own.
        weights: ``[P]``, relative to each other; negative pushes away.

    Raises:
        ValueError: there is none, or the weights do not fit, are not finite or 0.
    """

    def __init__(self, embeddings: Tensor, weights: Tensor):
        count = embeddings.shape[-2]
        if count == 0 or tuple(weights.shape) != (count,):
            raise ValueError(
                f"expected one weight for each of at least one target, "
                f"got {list(weights.shape)} weights for {count} targets"
            )
        if not (weights.isfinite() & (weights != 0.0)).all():
            raise ValueError(f"weights must be numbers other than 0, got {weights}")
        self._directions = Constant(unit(embeddings) * weights.sign().to(embeddings)[:, None])
        self._shares = Constant(weights.abs() / weights.abs().sum())

    @property
    def directions(self) -> Tensor:
        """The targets' directions, ``[P, D]`` or ``[B, P, D]``, turned where the weight is < 0."""
        return self._directions.tensor

    @property
    def shares(self) -> Tensor:
        """The weights' shares of their sum, ``[P]``."""
        return self._shares.tensor

    def distance(self, embeddings: Tensor) -> Tensor:
        """The energy of ``embeddings [..., B, D]``: ``[..., B]``."""
        embeddings = unit(embeddings)[..., None]
        cosines = self._directions.like(embeddings) @ embeddings  # of -t_p where w_p < 0
        cosines = cosines.squeeze(-1)  # [..., B, P]
        return (1.0 - cosines) @ self._shares.like(embeddings)
