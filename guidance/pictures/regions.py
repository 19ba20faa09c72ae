"""Regions for energies that run a network: see the box around the region, move only the region.

A network needs a whole picture, not a set of pixels: cutting the rest away would show it a shape
on black. It sees the region's bounding box with what surrounds the region there, and the gradient
reaches the region alone.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ..transfers import numbers
from .preprocessing import INTERPOLATIONS, Preprocessing

__all__ = [
    "cropped",
    "fitted_boxes",
    "only_region_moves",
    "reference_view",
    "region_boxes",
    "seen",
    "view_aspect",
]

# Below this part of the region's maximum a soft edge does not widen the box.
VISIBLE = 0.05

# Least side of a box in pixels: a smaller one shows a network nothing but a blur.
LEAST_SIDE = 8.0

# Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 1981: the
# parameter for which the kernel reproduces quadratics; PIL and torch use it with antialiasing.
CUBIC = -0.5


def only_region_moves(image: Tensor, region: Tensor | None) -> Tensor:
    """Return ``image`` itself, with a gradient that is multiplied by the region: 0 outside.

    Args:
        image: ``[B, C, H, W]``.
        region: ``[1 or B, 1, H, W]`` in [0, 1], or None for the whole image.
    """
    if region is None:
        return image
    fixed = image.detach()
    return fixed + region.to(image) * (image - fixed)  # the second term is exactly 0


def seen(image: Tensor, region: Tensor | None, preprocessing: Preprocessing) -> Tensor:
    """Make a network's input ``[B, C, h, w]`` from the region of a picture.

    Without a region it is the network's own preprocessing; with one the same for its box, whose
    shorter side grows to the shape that the preprocessing asks for where the image has room.

    Args:
        image: ``[B, 3, H, W]``.
        region: ``[1 or B, 1, H, W]`` in [0, 1], or None for the whole image.
        preprocessing: that of the network, whose input has a fixed size.
    """
    if region is None:
        return preprocessing(image)
    boxes = fitted_boxes(region_boxes(region, image), image, view_aspect(image, preprocessing))
    crop = cropped(
        only_region_moves(image, region),
        boxes,
        preprocessing.input_size,
        preprocessing.interpolation,
    )
    return preprocessing.normalized(crop)


def reference_view(
    pictures: Tensor, mask: Tensor | None, preprocessing: Preprocessing
) -> tuple[Tensor, Tensor | None]:
    """Make a network's input from references, and tell which part of it counts.

    Args:
        pictures: ``[R, 3, h, w]`` in [0, 1], with something neutral where nothing counts.
        mask: ``[R, 1, h, w]`` in [0, 1], or None: the whole pictures are shown, and count.
        preprocessing: that of the network, whose input has a fixed size.

    Returns:
        its inputs ``[R, C, h', w']``, of the mask's box, and ``[R, 1, h', w']`` or None.
    """
    views = seen(pictures, mask, preprocessing)
    if mask is None:
        return views, None
    plain = replace(
        preprocessing, mean=(0.0,), std=(1.0,), channels="rgb", interpolation="bilinear"
    )
    return views, seen(mask.expand(-1, 3, -1, -1), mask, plain)[:, :1]


def view_aspect(image: Tensor, preprocessing: Preprocessing) -> float:
    """Width divided by height of what the preprocessing shows of the whole image."""
    sides = image.shape[-2:] if preprocessing.fit == "stretch" else preprocessing.input_size
    height, width = sides
    return width / height


def region_boxes(region: Tensor | None, image: Tensor) -> Tensor:
    """Bounding boxes of the region in pixels of ``image [B, C, H, W]``, a constant.

    A box holds every pixel in which the region is above 5 % of its own maximum. It is the whole
    image without a region or with an empty one, and at least ``LEAST_SIDE`` pixels wide and high
    where the image is.

    Args:
        region: ``[1 or B, 1, H, W]`` in [0, 1], or None.

    Returns:
        ``[1 or B, 4]``: left, top, right and bottom edge; the whole image is (0, 0, W, H).
    """
    height, width = image.shape[-2:]
    if region is None:
        return numbers((0.0, 0.0, width, height), image)[None]
    region = region.detach().to(image)[:, 0]  # [1 or B, H, W]
    peak = region.amax((1, 2), keepdim=True)
    inside = (region > VISIBLE * peak) | (peak <= 0.0)
    left, right = _extent(inside.any(1), image)
    top, bottom = _extent(inside.any(2), image)
    return torch.stack((left, top, right, bottom), dim=1)


def fitted_boxes(boxes: Tensor, image: Tensor, aspect: float) -> Tensor:
    """The boxes with another ratio of width to height, inside the image.

    The side that is too short grows evenly as far as the image has room; what is still too long
    then is cut evenly, as the center crop of a network's own preprocessing does.

    Args:
        boxes: ``[N, 4]`` as ``region_boxes`` gives them.
        aspect: width divided by height.
    """
    height, width = image.shape[-2:]
    left, top, right, bottom = boxes.unbind(1)
    wide, high = right - left, bottom - top
    grown_wide = torch.maximum(wide, high * aspect).clamp(max=width)
    grown_high = torch.maximum(high, wide / aspect).clamp(max=height)
    final_wide = torch.minimum(grown_wide, grown_high * aspect)
    final_high = torch.minimum(grown_high, grown_wide / aspect)
    left = _placed((left + right) / 2.0, final_wide, width)
    top = _placed((top + bottom) / 2.0, final_high, height)
    return torch.stack((left, top, left + final_wide, top + final_high), dim=1)


def cropped(
    image: Tensor, boxes: Tensor, size: tuple[int, int], interpolation: str = "bilinear"
) -> Tensor:
    """What lies in the boxes, resampled to ``size``, antialiased where it shrinks.

    The separable filter of PIL and of torch's antialiased ``interpolate``, for boxes at any place:
    for the whole image the two agree to rounding, at the image's own size the result is the image.
    Beyond the image's border its outermost pixels go on. Differentiable in the image as often as
    wanted, and in the boxes.

    Args:
        image: ``[B, C, H, W]``.
        boxes: ``[1 or B, 4]`` as ``region_boxes`` gives them; edges need not be integers.
        size: height and width of the result.
        interpolation: one of INTERPOLATIONS.

    Returns:
        ``[B, C, *size]``.

    Raises:
        ValueError: the interpolation is unknown.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {interpolation}"
        )
    left, top, right, bottom = boxes.to(image).unbind(1)
    rows = _filter(top, bottom, image.shape[-2], size[0], interpolation)  # [1 or B, h, H]
    columns = _filter(left, right, image.shape[-1], size[1], interpolation)  # [1 or B, w, W]
    return rows[:, None] @ image @ columns[:, None].transpose(-1, -2)


def _extent(occupied: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """First and last edge of what is occupied, ``[N, L] -> [N], [N]``; LEAST_SIDE apart or more."""
    length = occupied.shape[1]
    occupied = occupied.to(like.dtype)  # argmax finds the first of several equal maxima
    first = occupied.argmax(1).to(like.dtype)
    last = length - occupied.flip(1).argmax(1).to(like.dtype)
    side = (last - first).clamp(min=min(LEAST_SIDE, length))
    first = _placed((first + last) / 2.0, side, length)
    return first, first + side


def _placed(center: Tensor, side: Tensor, length: int) -> Tensor:
    """The first edge of a side around ``center``, moved so that it lies in ``[0, length]``."""
    return torch.minimum((center - side / 2.0).clamp(min=0.0), length - side)


def _filter(first: Tensor, last: Tensor, length: int, count: int, interpolation: str) -> Tensor:
    """Weights ``[N, count, length]`` that resample the interval of each of N boxes."""
    step = ((last - first) / count)[:, None]  # [N, 1]
    places = torch.arange(count, dtype=first.dtype, device=first.device) + 0.5
    pixels = torch.arange(length, dtype=first.dtype, device=first.device) + 0.5
    centers = (first[:, None] + places * step).clamp(0.0, length)  # [N, count]
    # The kernel is stretched over the pixels that one result stands for: no aliasing.
    distance = (pixels - centers[..., None]).abs() / step[..., None].clamp(min=1.0)
    weights = _triangle(distance) if interpolation == "bilinear" else _cubic(distance)
    return weights / weights.sum(-1, keepdim=True)


def _triangle(distance: Tensor) -> Tensor:
    return (1.0 - distance).clamp(min=0.0)


def _cubic(distance: Tensor) -> Tensor:
    near = ((CUBIC + 2.0) * distance - (CUBIC + 3.0)) * distance.square() + 1.0
    far = CUBIC * (((distance - 5.0) * distance + 8.0) * distance - 4.0)
    return torch.where(distance < 1.0, near, torch.where(distance < 2.0, far, 0.0))
