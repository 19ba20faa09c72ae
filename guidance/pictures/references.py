"""Reference pictures: kept as ordinary tensors, fitted to an image's resolution on demand."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .smoothing import region_weights

__all__ = ["Reference", "cover", "ordinary"]

# Resolutions kept by one reference; a run asks for one or two (the image, a smaller decoding).
FITTED_KEPT = 2

# Below this share of a pixel its color is rounding.
LEAST_MASK = 1e-6


def ordinary(tensor: Tensor) -> Tensor:
    """Return a copy of ``tensor`` that autograd may save, whatever mode the caller runs in.

    Tensors made under ``torch.inference_mode`` cannot be saved for a backward pass.
    """
    with torch.inference_mode(False), torch.no_grad():
        return tensor.detach().clone(memory_format=torch.contiguous_format)


def cover(pictures: Tensor, height: int, width: int) -> Tensor:
    """Scale ``[R, C, h, w]`` to ``[R, C, height, width]``, filling it, what overhangs cut evenly.

    Pictures of that size are returned as they are.
    """
    source_height, source_width = pictures.shape[-2:]
    if (source_height, source_width) == (height, width):
        return pictures
    scale = max(height / source_height, width / source_width)
    crop_height = min(source_height, max(1, round(height / scale)))
    crop_width = min(source_width, max(1, round(width / scale)))
    top = math.floor((source_height - crop_height) / 2)
    left = math.floor((source_width - crop_width) / 2)
    cropped = pictures[..., top : top + crop_height, left : left + crop_width]
    return F.interpolate(cropped, size=(height, width), mode="bilinear", antialias=True)


class Reference:
    """One reference picture for all images, or one for each image of a batch.

    Args:
        pictures: ``[R, 3, h, w]`` RGB in [0, 1], of any resolution.
        mask: ``[R, 1, h, w]`` in [0, 1], how much of each pixel counts, or None: all of it.

    Raises:
        ValueError: ``pictures`` or ``mask`` has another shape.
    """

    def __init__(self, pictures: Tensor, mask: Tensor | None = None):
        if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.numel() == 0:
            raise ValueError(
                f"reference must be RGB pictures [R, 3, h, w], got {list(pictures.shape)}"
            )
        if mask is not None and mask.shape != pictures[:, :1].shape:
            raise ValueError(
                f"the mask of the reference must be {list(pictures[:, :1].shape)}, "
                f"got {list(mask.shape)}"
            )
        self.pictures = ordinary(pictures)
        self.mask = None if mask is None else ordinary(mask)
        # A pure function of its arguments: remembering its last results changes no result.
        self._fitted = lru_cache(FITTED_KEPT)(self._fit)

    def at(self, image: Tensor) -> Tensor:
        """Fit the reference to the size, dtype and device of ``image``: ``[1 or B, 3, H, W]``.

        Raises:
            ValueError: the number of references is neither 1 nor the batch size.
        """
        self.check_batch(image)
        return self._fitted(*image.shape[-2:], image.dtype, image.device)[0]

    def weights(self, image: Tensor, region: Tensor | None) -> Tensor:
        """The region, and of it what counts of the reference: ``[1 or B, 1, H, W]`` like ``image``.

        Args:
            region: ``[1 or B, 1, H, W]``, or None for the whole image.
        """
        weights = region_weights(region, image)
        if self.mask is None:
            return weights
        fitted = self._fitted(*image.shape[-2:], image.dtype, image.device)[1]
        return weights if fitted is None else weights * fitted

    def check_batch(self, image: Tensor) -> None:
        """Raise ValueError unless there is one reference, or one for each image."""
        count = self.pictures.shape[0]
        if count not in (1, image.shape[0]):
            raise ValueError(
                f"the reference holds {count} pictures, "
                f"expected 1 or the batch size {image.shape[0]}"
            )

    def _fit(
        self, height: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> tuple[Tensor, Tensor | None]:
        # Outside inference mode whoever asks first: the result is remembered for others.
        with torch.inference_mode(False), torch.no_grad():
            pictures = self.pictures.to(dtype)
            if self.mask is None:
                return cover(pictures, height, width).to(device), None
            mask = self.mask.to(dtype)
            fitted = cover(mask, height, width)
            # Pixels that do not count have no share in those that a smaller picture makes of them.
            shown = cover(pictures * mask, height, width) / fitted.clamp_min(LEAST_MASK)
            return shown.to(device), fitted.to(device)
