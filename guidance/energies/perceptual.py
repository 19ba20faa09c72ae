"""Perceptual distance: the picture should look like the reference to an eye, not to a ruler.

LPIPS (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR
2018): structures and textures in their places count, small shifts of color and pixels hardly.
"""

from collections.abc import Callable
from copy import copy
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..pictures.preprocessing import Preprocessing
from ..pictures.references import Reference
from ..pictures.regions import only_region_moves
from ..pictures.smoothing import weighted_mean

__all__ = ["Perceptual"]

# LPIPS shifts and scales pictures in [-1, 1]; on [0, 1] these are the numbers of ImageNet.
IMAGENET = Preprocessing(None, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

# Pictures that are smaller are enlarged: the authors trained on patches of this size.
LEAST_SIDE = 64

# Sizes of the picture whose reference is kept; a run asks for one or two.
SIZES_KEPT = 2


class Perceptual:
    """``E = sum_k  sum_p w_p |f_k(image)_p - f_k(reference)_p|^2 / sum_p w_p``, ``w`` the region,
    and of it what counts of the reference.

    ``f_k`` are the weighted unit maps of ``guidance.networks.lpips``; without a region it is the
    published distance of the two pictures at the size at which they are compared. Unit: LPIPS; 0
    for equal pictures.

    Args:
        network: takes ``[B, 3, h, w]`` to the maps ``[B, C_k, h_k, w_k]``.
        reference: ``[R, 3, h, w]`` RGB in [0, 1]; R is 1 or the batch size of the images.
            Pictures of another size are scaled to fill the image, what overhangs cut evenly.
        side: pictures whose shorter side is longer, in pixels, are scaled down to it; 0: none are.
        mask: ``[R, 1, h, w]`` in [0, 1], how much of the reference's pixels counts, or None.

    Raises:
        ValueError: ``reference`` has another shape, or ``side`` is negative.
    """

    describes_places = True  # what it asks for lies at places of the whole picture
    goal = 0.0  # of a picture that is all that it asks for

    def __init__(
        self,
        network: Callable[[Tensor], tuple[Tensor, ...]],
        reference: Tensor,
        side: int = 256,
        mask: Tensor | None = None,
    ):
        if side < 0:
            raise ValueError(f"side must be >= 0, got {side}")
        self.network = network
        self.reference = Reference(reference, mask)
        self.side = side
        self._targets = lru_cache(SIZES_KEPT)(self._encode)

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return (self.network,)

    def begin_run(self) -> "Perceptual":
        """This energy with a memory of its own: the reference's maps are dropped with the run."""
        run = copy(self)
        run._targets = lru_cache(SIZES_KEPT)(run._encode)
        return run

    def begin_step(self, step: int | None) -> None:
        """Nothing changes from step to step; see the RunEnergy protocol."""

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        self.reference.check_batch(image)
        weights = self.reference.weights(image, region)  # [1 or B, 1, H, W]
        maps = self._maps(only_region_moves(image, region))
        targets = self._targets(*image.shape[-2:], image.dtype, image.device)
        distances = [
            weighted_mean(
                (found - wanted).square().sum(1, keepdim=True),
                F.interpolate(weights, size=found.shape[-2:], mode="area"),
            )
            for found, wanted in zip(maps, targets, strict=True)
        ]
        return torch.stack(distances).sum(0)

    def _encode(
        self, height: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> tuple[Tensor, ...]:
        """The maps of the reference beside a picture of that size."""
        # Outside inference mode whoever asks first: the result is remembered for others.
        with torch.inference_mode(False), torch.no_grad():
            count = len(self.reference.pictures)
            beside = torch.empty(count, 3, height, width, dtype=dtype, device=device)
            return self._maps(self.reference.at(beside))

    def _maps(self, pictures: Tensor) -> tuple[Tensor, ...]:
        shorter = min(pictures.shape[-2:])
        largest = max(self.side, LEAST_SIDE) if self.side else shorter
        side = min(max(shorter, LEAST_SIDE), largest)
        if side != shorter:
            size = [round(length * side / shorter) for length in pictures.shape[-2:]]
            pictures = F.interpolate(pictures, size=size, mode="bilinear", antialias=True)
        return self.network(IMAGENET.normalized(pictures))
