"""Segmentation: a parser should find the classes of the target in their places.

The face parsing condition of FreeDoM (Yu et al., "FreeDoM: Training-Free Energy-Guided Conditional
Diffusion Model", ICCV 2023) and of Z-Magic, with distances that have curvature (method section 8).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..energy import networks_of
from ..pictures.class_scores import ClassScores
from ..pictures.label_maps import LabelMap
from ..pictures.regions import only_region_moves
from ..pictures.smoothing import region_weights, weighted_mean
from ..transfers import Constant

__all__ = ["COMPARED", "DISTANCES", "Segmentation"]

DISTANCES = ("cross entropy", "squared error")
COMPARED = ("probabilities", "logits")


class Segmentation:
    """``E = sum_p w_p d(P_p, T_p) / sum_p w_p`` over the pixels p of the parser's maps.

    - "cross entropy": ``d = sum_k T_k (log T_k - log P_k)``, the cross-entropy less the target's
      own entropy, so that 0 is a perfect match of soft targets as well.
    - "squared error": ``d = sum_k (P_k - T_k)^2``, between 0 and 2; of logits it is the square of
      the distance that FreeDoM and Z-Magic take.

    ``w_p`` is the target's weight (0 where any class will do), times the region at the maps'
    resolution, times ``sum_k c_k T_k`` with the weights c of the classes asked for. The parser
    sees the whole image; the gradient reaches the region only.

    Args:
        parser: takes ``image [B, 3, H, W]`` RGB in [0, 1] to maps of scores ``[B, K, h, w]``, which
            cover the whole image, or to a tuple of which the first counts. It may have
            ``networks``, as an energy has.
        scores: how to read the maps.
        target: probabilities of the classes; logits if logits are compared.
        distance: one of DISTANCES.
        compare: one of COMPARED; logits by squared error alone.
        class_weights: how much each class counts, ``[classes]``, >= 0; None: all the same.

    Raises:
        ValueError: the target has another number of classes, logits are to be compared by
            cross-entropy or where the parser gives probabilities, or a choice is unknown.
    """

    describes_places = True  # what it asks for lies at places of the whole picture
    goal = 0.0  # of a picture that is all that it asks for

    def __init__(
        self,
        parser: Callable[[Tensor], Tensor | tuple[Tensor, ...]],
        scores: ClassScores,
        target: LabelMap,
        distance: str = "cross entropy",
        compare: str = "probabilities",
        class_weights: Tensor | None = None,
    ):
        _check(scores, target, distance, compare)
        self.parser = parser
        self.scores = scores
        self.target = target
        self.distance = distance
        self.compare = compare
        self._class_weights = None if class_weights is None else Constant(class_weights)
        if self._class_weights is not None and not self._asks_for_something():
            raise ValueError(
                "the class weights are 0 for every class that the target asks for.\nName other "
                "classes, or weights above 0"
            )

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return networks_of(self.parser)

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        result = self.parser(only_region_moves(image, region))
        maps = result if isinstance(result, Tensor) else result[0]  # [B, K, h, w]
        target, weights = self.target.at(image, maps)
        weights = weights * self._importance(target)
        inside = region_weights(region, image)
        weights = weights * F.interpolate(inside, size=maps.shape[-2:], mode="area")
        return weighted_mean(self._distance(maps, target), weights)

    def _distance(self, maps: Tensor, target: Tensor) -> Tensor:
        """``[B, 1, h, w]``."""
        if self.distance == "cross entropy":
            return self.scores.divergence(target, maps)
        if self.compare == "logits":
            return (self.scores.complete(maps) - target).square().sum(1, keepdim=True)
        return (self.scores.probabilities(maps) - target).square().sum(1, keepdim=True)

    def _asks_for_something(self) -> bool:
        values, weights = self.target.values.float(), self.target.weights
        return bool((weights * self._importance(values)).any())

    def _importance(self, target: Tensor) -> Tensor | float:
        if self._class_weights is None:
            return 1.0
        asked = target.softmax(1) if self.compare == "logits" else target
        weights = self._class_weights.like(target)
        return torch.einsum("bkhw,k->bhw", asked, weights)[:, None]


def _check(scores: ClassScores, target: LabelMap, distance: str, compare: str) -> None:
    for name, value, choices in (("distance", distance, DISTANCES), ("compare", compare, COMPARED)):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value}")
    if target.classes != scores.classes:
        raise ValueError(f"the target has {target.classes} classes, the parser {scores.classes}")
    if compare == "logits" and distance != "squared error":
        raise ValueError(f"logits are compared by 'squared error', got '{distance}'")
    if compare == "logits" and scores.are_probabilities:
        raise ValueError("the parser gives probabilities, expected 'probabilities' to be compared")
