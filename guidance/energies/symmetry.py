"""Symmetry: the picture is its own mirror image, seen through a blur."""

import torch
from torch import Tensor

from ..pictures.regions import region_boxes
from ..pictures.smoothing import region_weights, through_blur, weighted_mean

__all__ = ["MIRRORS", "Symmetry"]

# The mirror images that the picture should equal, by what a user calls it; each is turned over
# along rows (-1), columns (-2) or both.
MIRRORS = {
    "left and right": ((-1,),),
    "top and bottom": ((-2,),),
    "both": ((-1,), (-2,)),
    "half turn": ((-1, -2),),
}


class Symmetry:
    """``E = mean over mirrors of  sum w |blur(image - mirrored image)|^2 / (3 sum w)``.

    The mirror stands in the middle of the picture, or of the box around the region. ``w`` is the
    region at a pixel times that at its mirror image: pairs count. Unit: squared sRGB difference.

    Args:
        mirror: which mirror images are meant, one of MIRRORS.
        blur: standard deviation of the blur as a fraction of the image's height, >= 0;
            0 compares pixel by pixel.

    Raises:
        ValueError: the mirror is unknown, or ``blur`` is negative.
    """

    describes_places = True  # the mirror stands in the middle of the whole picture
    goal = 0.0  # of a picture that is all that it asks for

    def __init__(self, mirror: str = "left and right", blur: float = 0.01):
        if mirror not in MIRRORS:
            raise ValueError(f"mirror must be one of {', '.join(MIRRORS)}, got {mirror}")
        if not blur >= 0.0:
            raise ValueError(f"blur must be >= 0, got {blur}")
        self.mirrors = MIRRORS[mirror]
        self.blur = blur

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        weights = region_weights(region, image)
        boxes = region_boxes(region, image).round().long()
        return torch.stack([self._distance(image, weights, boxes, m) for m in self.mirrors]).mean(0)

    def _distance(
        self, image: Tensor, weights: Tensor, boxes: Tensor, axes: tuple[int, ...]
    ) -> Tensor:
        """The distance ``[B]`` from the picture turned over along the axes."""
        other, counts = image, weights
        for axis in axes:
            ends = boxes[:, 0] + boxes[:, 2] if axis == -1 else boxes[:, 1] + boxes[:, 3]
            other, _ = _turned(other, ends, axis)
            counts, known = _turned(counts, ends, axis)
            counts = counts * known
        residual, counts = through_blur(
            image - other, weights * counts, self.blur * image.shape[-2]
        )
        return weighted_mean(residual.square().mean(1, keepdim=True), counts)


def _turned(x: Tensor, ends: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """``[B, C, H, W]`` turned over, and where there is something to be seen in the mirror.

    Args:
        ends: the sum of the edges between which it is turned, ``[1 or B]``.
    """
    length = x.shape[axis]
    partners = ends[:, None] - 1 - torch.arange(length, device=x.device)  # [N, length]
    partners = partners[:, None, None] if axis == -1 else partners[:, None, :, None]
    index = partners.clamp(0, length - 1).expand(*x.shape)
    return x.gather(axis, index), partners == partners.clamp(0, length - 1)
