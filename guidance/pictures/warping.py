"""Pictures under affine maps, differentiable and antialiased."""

import math

import torch
from kornia.geometry.transform import warp_affine
from torch import Tensor
from torch.nn import functional as F

from ..transfers import made_at

__all__ = ["warped"]

# What is sampled as it is up to this factor of shrinking: bilinear sampling leaves out next to
# nothing up to here, and the libraries of face networks always sample as it is.
UNFILTERED_SHRINK = 1.5


def warped(image: Tensor, matrices: Tensor, size: int) -> Tensor:
    """Cut square crops out of a picture under affine maps, black beyond it.

    Sampling is bilinear. What is shrunk by more than UNFILTERED_SHRINK is scaled down with a filter
    before, as far as that factor: detail does not alias, and every pixel has a gradient.

    Args:
        image: ``[B, C, H, W]``.
        matrices: ``[B, 2, 3]`` in float64 on the CPU: from pixels of the picture to pixels of the
            crop, whole numbers at pixel centers. Their linear part has an inverse.
        size: side of the crops in pixels.

    Returns:
        ``[B, C, size, size]``, differentiable in the image as often as wanted.
    """
    # Along x and y: how many of the picture's pixels one of the crop stands for.
    shrink = torch.linalg.inv(matrices[:, :, :2]).norm(dim=2)  # [B, 2]
    if not (shrink > UNFILTERED_SHRINK).any():
        return _sampled(image, matrices, size)
    crops = []
    for b, factors in enumerate(shrink.tolist()):
        picture, matrix = image[b : b + 1], matrices[b : b + 1]
        if max(factors) > UNFILTERED_SHRINK:
            picture, matrix = _shrunken(picture, matrix, factors, size)
        crops.append(_sampled(picture, matrix, size))
    return torch.cat(crops)


def _sampled(image: Tensor, matrices: Tensor, size: int) -> Tensor:
    return warp_affine(
        image,
        made_at(matrices, image),
        (size, size),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=True,  # whole numbers are pixel centers, as in OpenCV
    )


def _shrunken(
    picture: Tensor, matrix: Tensor, factors: list[float], size: int
) -> tuple[Tensor, Tensor]:
    """The part of ``picture [1, 3, H, W]`` around a crop, antialiased so far that the crop shrinks
    it by UNFILTERED_SHRINK only.

    Returns:
        The part and its map ``[1, 2, 3]`` to the crop.
    """
    ends = matrix.new_tensor(((-1.0, -1.0), (size, -1.0), (-1.0, size), (size, size)))
    inverse = torch.linalg.inv(matrix[0, :, :2])
    corners = (ends - matrix[0, :, 2]) @ inverse.T + 0.5  # [4, 2]: edges of pixels, not centers
    (left, right, columns), (top, bottom, rows) = (
        _window(corners[:, axis], factors[axis], picture.shape[-1 - axis]) for axis in (0, 1)
    )
    if left >= right or top >= bottom:
        return picture, matrix  # nothing of the crop is in the picture
    part = picture[..., top:bottom, left:right]
    part = F.interpolate(part, size=(rows, columns), mode="bilinear", antialias=True)
    # Pixel i of the part is at start + (i + 1/2) step - 1/2 of the picture.
    start = matrix.new_tensor((left, top))
    step = matrix.new_tensor(((right - left) / columns, (bottom - top) / rows))
    shift = matrix[:, :, 2] + matrix[:, :, :2] @ (start + (step - 1.0) / 2.0)
    return part, torch.cat((matrix[:, :, :2] * step, shift[..., None]), dim=2)


def _window(corners: Tensor, factor: float, side: int) -> tuple[int, int, int]:
    """First and last edge in the picture of what lies between corners, and how many pixels to
    make of it."""
    first = max(0, math.floor(float(corners.min()) - factor))
    last = min(side, math.ceil(float(corners.max()) + factor))
    return first, last, max(1, round((last - first) / max(factor / UNFILTERED_SHRINK, 1.0)))
