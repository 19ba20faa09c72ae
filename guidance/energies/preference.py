"""Preference: the picture should be one that a model of people's judgement scores highly.

Such models are CLIPs, or small heads on a CLIP's embedding, and all of them are affine in the unit
embedding ``e`` of a picture: ``S = w . e + b``.

- PickScore (Kirstain et al., "Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image
  Generation", NeurIPS 2023) and HPSv2 (Wu et al., "Human Preference Score v2", 2023):
  ``w = scale * t``, ``t`` the unit embedding of the prompt. Both are published in hundredths.
- LAION's aesthetic heads (Schuhmann, "LAION-Aesthetics", 2022): a stack of linear layers without
  activations between them, which is one linear layer.
- CLIP-IQA (Wang et al., "Exploring CLIP for Assessing the Look and Feel of Images", AAAI 2023):
  ``w = scale * (t+ - t-)`` of two opposite prompts; its score is the logistic function of S.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..embeddings import unit
from ..pictures.preprocessing import Preprocessing
from ..pictures.regions import seen
from ..transfers import Constant

__all__ = ["Preference", "Scores", "aesthetic", "for_a_prompt", "of_opposites"]

# What pictures do not reach: the best generators have a mean PickScore of 23 and a mean HPSv2 of
# 28, and aesthetic heads learned marks of 1 to 10.
TOP_FOR_PROMPTS = 40.0
TOP_AESTHETIC = 10.0


@dataclass(frozen=True, eq=False)
class Scores:
    """K scores that are affine in the unit embedding ``e`` of a picture: ``S_k = w_k . e + b_k``.

    Args:
        weights: ``w``, ``[K, D]``.
        offsets: ``b``, ``[K]``.
        top: the score from which on a picture is good enough.
    """

    weights: Tensor
    offsets: Tensor
    top: float


def for_a_prompt(text: Tensor, scale: float) -> Scores:
    """The score of PickScore and HPSv2: how well a picture goes with a prompt, by people's choice.

    Args:
        text: the prompt's embedding by the same model, ``[1, D]``.
        scale: what the cosine is multiplied with.
    """
    return Scores(scale * unit(text), torch.zeros(1), TOP_FOR_PROMPTS)


def of_opposites(good: Tensor, bad: Tensor, scale: float) -> Scores:
    """The logits of CLIP-IQA for K pairs of prompts: 0 where either fits as well.

    Args:
        good, bad: embeddings of the prompts, ``[K, D]``.
        scale: what cosines are multiplied with.
    """
    return Scores(scale * (unit(good) - unit(bad)), torch.zeros(len(good)), 0.0)


def aesthetic(layers: Sequence[tuple[Tensor, Tensor]]) -> Scores:
    """The score of an aesthetic head.

    Args:
        layers: weight ``[out, in]`` and bias ``[out]`` of each linear layer, the first one first;
            the last one has one output.

    Raises:
        ValueError: there is no layer, or one does not fit the one before it.
    """
    if not layers:
        raise ValueError("expected at least one layer, got none")
    matrix, offset = layers[0][0].double(), layers[0][1].double()
    for weight, bias in layers[1:]:
        if weight.shape[1] != matrix.shape[0]:
            raise ValueError(
                f"a layer takes {weight.shape[1]} numbers, the one before it makes "
                f"{matrix.shape[0]}"
            )
        matrix, offset = weight.double() @ matrix, weight.double() @ offset + bias.double()
    if matrix.shape[0] != 1:
        raise ValueError(f"expected a head with one output, got {matrix.shape[0]}")
    return Scores(matrix.float(), offset.float(), TOP_AESTHETIC)


class Preference:
    """``E = mean_k log(1 + exp(top - S_k(image)))``: what a score lacks of its top.

    Far below the top it is ``top - S``; above, it and its gradient vanish, so that nothing is
    gained by a score that no picture has. For pairs of prompts, whose top is 0, it is the
    surprise ``-log p`` that the good one fits. Unit: that of the score.

    Args:
        network: the image tower, ``[B, 3, h, w] -> [B, D]``.
        preprocessing: the way from a picture to the tower's input.
        scores: the scores.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        preprocessing: Preprocessing,
        scores: Scores,
    ):
        self.network = network
        self.preprocessing = preprocessing
        self.top = scores.top
        self._weights = Constant(scores.weights)
        self._offsets = Constant(scores.offsets)

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return (self.network,)

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        return F.softplus(self.top - self.scores(image, region)).mean(1)

    def scores(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The scores ``S_k`` of ``image [B, 3, H, W]``, ``[B, K]``."""
        directions = unit(self.network(seen(image, region, self.preprocessing)))  # [B, D]
        return directions @ self._weights.like(directions).T + self._offsets.like(directions)
