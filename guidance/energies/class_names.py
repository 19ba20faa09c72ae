"""Classes as people write them: by numbers, by colours, with weights."""

import re

import torch
from torch import Tensor

from ..numbers import LARGEST_WEIGHT, number_in
from ..wording import quoted
from .color_palette import parse_colors

__all__ = ["FACE_COLORS", "parse_class_weights", "parse_classes", "parse_palette"]

# Digits of a class's number.
LONGEST_NUMBER = 9

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
    matches = [re.match(rf"\d{{1,{LONGEST_NUMBER}}}(?![\d.:])", part) for part in parts]
    if None in matches:
        part = parts[matches.index(None)]
        raise ValueError(
            f"classes must be numbers separated by commas, such as '17 hair, 1 skin', got "
            f"{quoted(part)}"
        )
    return [int(match.group()) for match in matches if match]


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
        number, _, weight = part.partition(":")
        value = number_in(weight)
        known = number.isdecimal() and len(number) <= LONGEST_NUMBER and int(number) < classes
        if not known or value is None or not 0.0 <= value <= LARGEST_WEIGHT:
            raise ValueError(
                f"class_weights must be class:weight pairs such as '17:2, 1:0.5' with classes 0 to "
                f"{classes - 1} and weights of 0 to {LARGEST_WEIGHT:.0f}, got {quoted(part)}"
            )
        weights[int(number)] = value
    if not weights.any():
        raise ValueError("class_weights must leave at least one class a weight above 0")
    return weights
