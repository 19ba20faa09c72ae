"""Classes of a segmenter as people write them: by their numbers, with remarks or weights."""

import re

import torch
from torch import Tensor

from ...guidance.wording import quoted
from .numbers import LARGEST_WEIGHT, number_in

__all__ = ["parse_class_weights", "parse_classes", "parse_mask_classes"]

# Digits of a class's number.
LONGEST_NUMBER = 9


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
            f"'classes' must be numbers separated by commas, such as '17 hair, 1 skin', got "
            f"{quoted(part)}"
        )
    return [int(match.group()) for match in matches]


def parse_mask_classes(text: str, masks: int, classes: int) -> list[int]:
    """The class of each of ``masks`` masks, as ``parse_classes`` reads them.

    Raises:
        ValueError: there are more or fewer, or one is none of the segmenter's ``classes``.
    """
    numbers = parse_classes(text)
    if len(numbers) != masks:
        raise ValueError(
            f"'classes' must name one class for each of the {masks} masks, in their order, such as "
            f"'17 hair, 1 skin', got {len(numbers)}"
        )
    strange = [number for number in numbers if number >= classes]
    if strange:
        raise ValueError(
            f"'classes' names class {strange[0]}, the segmenter has the classes 0 to {classes - 1}"
        )
    return numbers


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
                "'class_weights' must be class:weight pairs such as '17:2, 1:0.5' with classes 0 "
                f"to {classes - 1} and weights of 0 to {LARGEST_WEIGHT:.0f}, got {quoted(part)}"
            )
        weights[int(number)] = value
    if not weights.any():
        raise ValueError("'class_weights' must leave at least one class a weight above 0")
    return weights
