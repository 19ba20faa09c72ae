"""Label maps: which class is asked for where, from colours, numbers, masks or a network's scores.

Pixels for which no class is asked are free: their weight is 0.
"""

import math
import re
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .color_palette import parse_colors
from .references import cover, ordinary

__all__ = [
    "FACE_COLORS",
    "LabelMap",
    "parse_class_weights",
    "parse_classes",
    "parse_palette",
]

# Classes of the BiSeNet face parsers trained on CelebAMask-HQ, in the order of their outputs, with
# the colours in which the data set's own tools draw them (CelebAMask-HQ, face_parsing/
# Data_preprocessing: g_mask.py numbers the parts in another order, g_color.py has the colours).
FACE_COLORS = {
    "background": "#000000",
    "skin": "#cc0000",
    "left brow": "#00ffff",
    "right brow": "#ffcccc",
    "left eye": "#3333ff",
    "right eye": "#cc00cc",
    "glasses": "#cccc00",
    "left ear": "#663300",
    "right ear": "#ff0000",
    "earring": "#00cccc",
    "nose": "#4c9900",
    "mouth": "#66cc00",
    "upper lip": "#ffff00",
    "lower lip": "#000099",
    "neck": "#ff9933",
    "necklace": "#003300",
    "clothes": "#00cc00",
    "hair": "#0000cc",
    "hat": "#ff3399",
}

# Largest distance in sRGB of a pixel from the colour it is taken for: above the rounding of 8 bits
# and of JPEG. Where two colours of a palette are nearer than twice that (the face colours are 0.2
# apart), less than half their distance.
TOLERANCE = 0.09
LESS_THAN_HALF = 0.45

# The number that segmentation data sets give to pixels without a label.
FREE = 255

# Where masks overlap or leave off, weights below this are rounding.
LEAST_WEIGHT = 1e-4

# Resolutions kept by one map; a run asks for one or two (the image, a smaller decoding).
FITTED_KEPT = 2


class LabelMap:
    """What is asked for at every pixel.

    Args:
        values: ``[R, K, h, w]``: probabilities of the classes, or their scores; R is 1 or the
            batch size of the images. What it holds where the weight is 0 does not matter.
        weights: ``[R, 1, h, w]`` in [0, 1]: 0 where the pixel is free.
        owner: error messages start with it.
        aspect: width divided by height of the picture that the map stands for; by default w / h.

    Raises:
        ValueError: the map asks for nothing.
    """

    def __init__(self, values: Tensor, weights: Tensor, owner: str, aspect: float | None = None):
        if not (weights > 0.0).any():
            raise ValueError(f"{owner}: no pixel of the target asks for a class")
        self.values = ordinary(values)
        self.weights = ordinary(weights)
        self.owner = owner
        self.aspect = aspect or values.shape[-1] / values.shape[-2]
        # A pure function of its arguments: remembering its last results changes no result.
        self._fitted = lru_cache(FITTED_KEPT)(self._fit)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.values.shape[1]

    @staticmethod
    def from_colors(pictures: Tensor, palette: Tensor, classes: int, owner: str) -> "LabelMap":
        """The class whose colour a pixel has; pixels of other colours are free.

        Args:
            pictures: ``[R, 3, h, w]`` RGB in [0, 1].
            palette: ``[J, 3]``, one colour for each of the first J classes, J <= classes.
        """
        apart = torch.pdist(palette.double()).min().item() if len(palette) > 1 else math.inf
        best = torch.full_like(pictures[:, 0], min(TOLERANCE, LESS_THAN_HALF * apart))
        nearest = torch.full_like(best, FREE, dtype=torch.long)
        for number, color in enumerate(palette.to(pictures)):
            distance = (pictures - color[:, None, None]).norm(dim=1)
            nearest = torch.where(distance < best, number, nearest)
            best = torch.minimum(best, distance)
        return LabelMap.from_indices(nearest, classes, owner)

    @staticmethod
    def from_gray(pictures: Tensor, classes: int, owner: str) -> "LabelMap":
        """The class whose number the grey of a pixel is, of 255; 255 itself is free.

        Args:
            pictures: ``[R, 3, h, w]`` in [0, 1].

        Raises:
            ValueError: the picture is not grey, or has numbers that are no class.
        """
        levels = (pictures * 255.0).round().long()
        if (levels != levels[:, :1]).any():
            raise ValueError(
                f"{owner}: an index map must be a grey picture whose levels are the numbers of the "
                "classes, got a coloured one; choose 'colour map', or 'photograph' to have it "
                "parsed"
            )
        return LabelMap.from_indices(levels[:, 0], classes, owner)

    @staticmethod
    def from_indices(indices: Tensor, classes: int, owner: str) -> "LabelMap":
        """Numbers of classes ``[R, h, w]``; 255 is free.

        Raises:
            ValueError: a number is no class.
        """
        asked = indices != FREE
        strange = indices[asked & ((indices < 0) | (indices >= classes))].unique().tolist()
        if strange:
            raise ValueError(
                f"{owner}: the index map holds {', '.join(map(str, strange[:5]))}, expected the "
                f"segmenter's classes 0 to {classes - 1}, and 255 where any class will do"
            )
        count, height, width = indices.shape
        one_hot = torch.zeros(count, classes, height, width, dtype=torch.uint8)
        one_hot.scatter_(1, torch.where(asked, indices, 0)[:, None].cpu(), 1)
        return LabelMap(one_hot, asked[:, None].cpu().float(), owner)

    @staticmethod
    def from_masks(
        masks: Sequence[Tensor], numbers: Sequence[int], classes: int, owner: str
    ) -> "LabelMap":
        """One mask for each class; where several overlap, each has its share.

        Args:
            masks: ``[R, h, w]`` in [0, 1] each; of other sizes than the first, they are scaled to
                fill it.
            numbers: each mask's class.

        Raises:
            ValueError: the numbers of masks and of classes differ, or a number is no class.
        """
        _check_masks(masks, numbers, classes, owner)
        height, width = masks[0].shape[-2:]
        count = max(len(mask) for mask in masks)
        asked = torch.zeros(count, classes, height, width)
        for mask, number in zip(masks, numbers, strict=True):
            mask = cover(mask[:, None].float().cpu(), height, width)[:, 0].clamp(0.0, 1.0)
            asked[:, number] = torch.maximum(asked[:, number], mask.expand(count, -1, -1))
        total = asked.sum(1, keepdim=True)
        weights = torch.where(total < LEAST_WEIGHT, 0.0, total.clamp(max=1.0))
        return LabelMap(asked / total.clamp_min(LEAST_WEIGHT), weights, owner)

    def at(self, image: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """What is asked for of ``maps [B, K, h, w]``, which a network made of ``image``.

        The target is cut to the picture's ratio of sides and averaged over the pixels of ``maps``,
        so that classes keep their shares of the area.

        Returns:
            values ``[1 or B, K, h, w]``, weighted averages, and weights ``[1 or B, 1, h, w]``.

        Raises:
            ValueError: the number of targets is neither 1 nor the batch size.
        """
        if len(self.values) not in (1, len(image)):
            raise ValueError(
                f"{self.owner}: the target holds {len(self.values)} pictures, "
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


def parse_palette(text: str, classes: int) -> Tensor:
    """The colours of the classes ``[J, 3]``, in their order; of an empty text FACE_COLORS.

    Raises:
        ValueError: a word is no colour, two are equal, or there are more than classes.
    """
    if not text.strip():
        if classes != len(FACE_COLORS):
            raise ValueError(
                f"colors must name the colours of the segmenter's {classes} classes in their "
                f"order: the built-in ones are those of {len(FACE_COLORS)} face classes"
            )
        text = " ".join(FACE_COLORS.values())
    palette, proportions = parse_colors(text)
    if proportions is not None:
        raise ValueError("colors must be hexadecimal colours without proportions")
    if len(palette) > classes:
        raise ValueError(
            f"colors names {len(palette)} colours, the segmenter has {classes} classes"
        )
    equal = (torch.cdist(palette, palette) == 0.0).triu(1).nonzero().tolist()
    if equal:
        first, second = equal[0]
        raise ValueError(f"colors must differ, got the same one for classes {first} and {second}")
    return palette


def parse_classes(text: str) -> list[int]:
    """Numbers of classes: ``"17, 1, 10"``, or with remarks, ``"17 hair, 1 skin"``.

    Raises:
        ValueError: a part does not begin with a number.
    """
    parts = [part.strip() for part in re.split(r"[,;\n]", text) if part.strip()]
    if len(parts) == 1 and re.fullmatch(r"\d+(\s+\d+)+", parts[0]):
        parts = parts[0].split()
    matches = [re.match(r"\d+(?![\d.:])", part) for part in parts]
    if None in matches:
        part = parts[matches.index(None)]
        raise ValueError(
            f"classes must be numbers separated by commas, such as '17 hair, 1 skin', got '{part}'"
        )
    return [int(match.group()) for match in matches]


def parse_class_weights(text: str, classes: int) -> Tensor | None:
    """Weights ``[classes]`` from ``"17:2, 1:0.5"``, 1 for the others; None for an empty text.

    Raises:
        ValueError: a part is not ``class:weight``, a weight is negative, or all are 0.
    """
    parts = text.replace(",", " ").replace(";", " ").split()
    if not parts:
        return None
    weights = torch.ones(classes)
    for part in parts:
        match = re.fullmatch(r"(\d+):(\d+\.?\d*|\.\d+)", part)
        if match is None or int(match[1]) >= classes:
            raise ValueError(
                f"class_weights must be class:weight pairs such as '17:2, 1:0.5' with classes 0 to "
                f"{classes - 1} and weights >= 0, got '{part}'"
            )
        weights[int(match[1])] = float(match[2])
    if not weights.any():
        raise ValueError("class_weights must leave at least one class a weight above 0")
    return weights


def _check_masks(masks: Sequence[Tensor], numbers: Sequence[int], classes: int, owner: str) -> None:
    if len(masks) != len(numbers):
        raise ValueError(
            f"{owner}: 'classes' must name one class for each of the {len(masks)} masks, in their "
            f"order, such as '17 hair, 1 skin', got {len(numbers)}"
        )
    strange = [number for number in numbers if number >= classes]
    if strange:
        raise ValueError(
            f"{owner}: 'classes' names class {strange[0]}, the segmenter has the classes 0 to "
            f"{classes - 1}"
        )
    counts = sorted({len(mask) for mask in masks} - {1})
    if len(counts) > 1:
        raise ValueError(
            f"{owner}: the masks hold {' and '.join(map(str, counts))} pictures, expected one each "
            "or the same number"
        )
