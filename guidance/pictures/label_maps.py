"""Label maps: the class wanted at each place, from colors, numbers, masks or a network's scores.

Pixels for which no class is asked are free: their weight is 0.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .references import cover, ordinary
from .soft_edges import FREE, TOLERANCE, without_mixed_colors, without_mixed_levels

__all__ = ["LabelMap"]

# Where two colors of a palette are nearer than twice the tolerance (the face colors are 0.2
# apart), it is less than half their distance.
LESS_THAN_HALF = 0.45

# Colors that a message names.
NAMED_COLORS = 4

# Where masks overlap or leave off, weights below this are rounding.
LEAST_WEIGHT = 1e-4

# Resolutions kept by one map; a run asks for one or two (the image, a smaller decoding).
FITTED_KEPT = 2


class LabelMap:
    """The classes that are wanted at every pixel.

    Args:
        values: ``[R, K, h, w]``: probabilities of the classes, or their scores; R is 1 or the
            batch size of the images. What it holds where the weight is 0 does not matter.
        weights: ``[R, 1, h, w]`` in [0, 1]: 0 where the pixel is free.
        aspect: width divided by height of the picture that the map stands for; by default w / h.

    Raises:
        ValueError: the map asks for nothing.
    """

    def __init__(self, values: Tensor, weights: Tensor, aspect: float | None = None):
        if not (weights > 0.0).any():
            raise ValueError("no pixel of the target asks for a class")
        self.values = ordinary(values)
        self.weights = ordinary(weights)
        self.aspect = aspect or values.shape[-1] / values.shape[-2]
        # A pure function of its arguments: remembering its last results changes no result.
        self._fitted = lru_cache(FITTED_KEPT)(self._fit)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.values.shape[1]

    @staticmethod
    def from_colors(
        pictures: Tensor,
        palette: Tensor,
        classes: int,
        counts: Tensor | None = None,
    ) -> "LabelMap":
        """Make a map of painted classes; pixels of other colors, and mixtures, are free.

        Args:
            pictures: ``[R, 3, h, w]`` RGB in [0, 1].
            palette: ``[J, 3]``, one color for each of the first J classes, J <= classes.
            counts: ``[R, 1, h, w]`` in [0, 1], the pixels that count, or None for all.

        Raises:
            ValueError: no pixel has the color of a class.
        """
        apart = torch.pdist(palette.double()).min().item() if len(palette) > 1 else math.inf
        best = torch.full_like(pictures[:, 0], min(TOLERANCE, LESS_THAN_HALF * apart))
        nearest = torch.full_like(best, FREE, dtype=torch.long)
        for number, color in enumerate(palette.to(pictures)):
            distance = (pictures - color[:, None, None]).norm(dim=1)
            nearest = torch.where(distance < best, number, nearest)
            best = torch.minimum(best, distance)
        nearest = _counting(without_mixed_colors(pictures, nearest, palette), counts)
        if (nearest == FREE).all():
            raise ValueError(_no_color(pictures, palette))
        return LabelMap.from_indices(nearest, classes)

    @staticmethod
    def from_gray(pictures: Tensor, classes: int, counts: Tensor | None = None) -> "LabelMap":
        """Make a map of gray levels, the classes' numbers of 255; 255, and mixtures, are free.

        Args:
            pictures: ``[R, 3, h, w]`` in [0, 1].
            counts: ``[R, 1, h, w]`` in [0, 1], the pixels that count, or None for all.

        Raises:
            ValueError: the picture is not gray, has numbers that are no class, or is free all over.
        """
        levels = (pictures * 255.0).round().long()
        levels = torch.stack([_counting(each, counts) for each in levels.unbind(1)], dim=1)
        if (levels != levels[:, :1]).any():
            raise ValueError(
                "an index map must be a gray picture whose levels are the numbers of the "
                "classes, got a colored one"
            )
        levels = without_mixed_levels(levels[:, 0])
        if (levels == FREE).all():
            raise ValueError(
                f"no pixel of the target asks for a class: the index map is white (255), "
                "which is free, wherever it counts.\nPaint the classes' numbers as gray levels: "
                f"those of the segmenter are 0 to {classes - 1}"
            )
        return LabelMap.from_indices(levels, classes)

    @staticmethod
    def from_indices(indices: Tensor, classes: int) -> "LabelMap":
        """Make a map of numbers of classes ``[R, h, w]``; 255 is free.

        Raises:
            ValueError: a number is no class.
        """
        asked = indices != FREE
        strange = indices[asked & ((indices < 0) | (indices >= classes))].unique().tolist()
        if strange:
            raise ValueError(
                f"the index map holds {', '.join(map(str, strange[:5]))}, expected the "
                f"segmenter's classes 0 to {classes - 1}, and 255 where any class will do"
            )
        count, height, width = indices.shape
        one_hot = torch.zeros(count, classes, height, width, dtype=torch.uint8)
        one_hot.scatter_(1, torch.where(asked, indices, 0)[:, None].cpu(), 1)
        return LabelMap(one_hot, asked[:, None].cpu().float())

    @staticmethod
    def from_masks(masks: Sequence[Tensor], numbers: Sequence[int], classes: int) -> "LabelMap":
        """Make a map of one mask for each class; where several overlap, each has its share.

        Args:
            masks: ``[R, h, w]`` in [0, 1] each; of other sizes than the first, they are scaled to
                fill it.
            numbers: the number of each mask's class.

        Raises:
            ValueError: the numbers of masks and of classes differ, or a number is no class.
        """
        _check_masks(masks, numbers, classes)
        height, width = masks[0].shape[-2:]
        count = max(len(mask) for mask in masks)
        asked = torch.zeros(count, classes, height, width)
        for mask, number in zip(masks, numbers, strict=True):
            mask = cover(mask[:, None].float().cpu(), height, width)[:, 0].clamp(0.0, 1.0)
            asked[:, number] = torch.maximum(asked[:, number], mask.expand(count, -1, -1))
        if not asked.any():
            raise ValueError(
                "no pixel of the target asks for a class: the masks are black all over."
                "\nPaint white where a class should be"
            )
        total = asked.sum(1, keepdim=True)
        weights = torch.where(total < LEAST_WEIGHT, 0.0, total.clamp(max=1.0))
        return LabelMap(asked / total.clamp_min(LEAST_WEIGHT), weights)

    def masked(self, counts: Tensor | None) -> "LabelMap":
        """Return the same map, free where ``counts [R, 1, h', w']`` is 0; None: as it is."""
        if counts is None:
            return self
        counts = F.interpolate(counts, size=self.weights.shape[-2:], mode="area")
        weights = self.weights * counts.to(self.weights)
        return LabelMap(self.values, weights, self.aspect)

    def at(self, image: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Fit the target to ``maps [B, K, h, w]``, which a network made of ``image``.

        The target is cut to the picture's ratio of sides and averaged over the pixels of ``maps``,
        so that classes keep their shares of the area.

        Returns:
            values ``[1 or B, K, h, w]``, weighted averages, and weights ``[1 or B, 1, h, w]``.

        Raises:
            ValueError: the number of targets is neither 1 nor the batch size.
        """
        if len(self.values) not in (1, len(image)):
            raise ValueError(
                f"the target holds {len(self.values)} pictures, "
                f"expected 1 or the batch size {len(image)}"
            )
        aspect = image.shape[-1] / image.shape[-2]
        return self._fitted(aspect, *maps.shape[-2:], maps.dtype, maps.device)

    def _fit(
        self, aspect: float, height: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        # Outside inference mode whoever asks first: the result is remembered for others.
        with torch.inference_mode(False), torch.no_grad():
            weights = self._cut(self.weights.to(dtype), aspect)
            values = self._cut(self.values.to(dtype), aspect) * weights
            values, weights = (
                F.interpolate(x, size=(height, width), mode="area") for x in (values, weights)
            )
            values = values / weights.clamp_min(torch.finfo(dtype).eps)
            return values.to(device), weights.to(device)

    def _cut(self, maps: Tensor, aspect: float) -> Tensor:
        """The middle that has the picture's ratio of sides."""
        height, width = maps.shape[-2:]
        kept_height = max(1, round(height * min(1.0, self.aspect / aspect)))
        kept_width = max(1, round(width * min(1.0, aspect / self.aspect)))
        top, left = (height - kept_height) // 2, (width - kept_width) // 2
        return maps[..., top : top + kept_height, left : left + kept_width]


def _counting(numbers: Tensor, counts: Tensor | None) -> Tensor:
    """Numbers of classes ``[R, h, w]``, FREE where a pixel does not count."""
    return numbers if counts is None else torch.where(counts[:, 0] > 0.5, numbers, FREE)


def _no_color(pictures: Tensor, palette: Tensor) -> str:
    """Why a color map asks for nothing."""
    found, counts = (
        (pictures.movedim(1, -1).flatten(0, 2) * 255.0).round().unique(dim=0, return_counts=True)
    )
    frequent = found[counts.argsort(descending=True)[:NAMED_COLORS]]
    return (
        "no pixel of the target asks for a class: none has the color of one.\n"
        f"Its most frequent colors are {_names(frequent)}; those of the classes are "
        f"{_names((palette * 255.0).round())}"
    )


def _names(colors: Tensor) -> str:
    """``#cc0000, #ffffff`` and so on, of ``[J, 3]`` in 0 to 255."""
    named = ["#" + "".join(f"{int(part):02x}" for part in color) for color in colors.tolist()]
    return ", ".join(named[:NAMED_COLORS]) + (", ..." if len(named) > NAMED_COLORS else "")


def _check_masks(masks: Sequence[Tensor], numbers: Sequence[int], classes: int) -> None:
    if len(masks) != len(numbers):
        raise ValueError(
            f"expected one class for each of the {len(masks)} masks, in their order, got "
            f"{len(numbers)}"
        )
    strange = [number for number in numbers if number >= classes]
    if strange:
        raise ValueError(f"there is no class {strange[0]}, expected 0 to {classes - 1}")
    counts = sorted({len(mask) for mask in masks} - {1})
    if len(counts) > 1:
        raise ValueError(
            f"the masks hold {' and '.join(map(str, counts))} pictures, expected one each "
            "or the same number"
        )
