"""Numbers that people write into widgets."""

import math
import re

import torch
from torch import Tensor

from ...guidance.wording import quoted

__all__ = [
    "LARGEST_WEIGHT",
    "SMALLEST_WEIGHT",
    "number_in",
    "numbers_in",
    "parse_blocks",
    "parse_weights",
    "weight_in",
]

# What counts against another by less, or more, could as well be left out; and sums of such numbers
# stay numbers in single precision.
SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-6, 1e6

# More digits than any number needs, and more than the number of a block has.
LONGEST = 40
LONGEST_BLOCK = 6


def number_in(text: str) -> float | None:
    """The finite number that ``text`` is as a whole, None if it is something else."""
    text = text.strip()
    if len(text) > LONGEST or "_" in text:  # which Python takes for a separator
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def weight_in(text: str) -> float | None:
    """A number of SMALLEST_WEIGHT to LARGEST_WEIGHT, None if ``text`` is something else."""
    value = number_in(text)
    return value if value is not None and SMALLEST_WEIGHT <= value <= LARGEST_WEIGHT else None


def numbers_in(text: str) -> tuple[float, ...] | None:
    """Finite numbers separated by commas or spaces, None if something else is there."""
    values = tuple(number_in(word) for word in re.split(r"[\s,;]+", text.strip(" ,;\n")))
    return None if None in values else values


def parse_blocks(text: str) -> tuple[int, ...]:
    """``3, 6`` as numbers, each once, in order.

    Raises:
        ValueError: there is none, or something else than numbers from 1.
    """
    parts = _parts(text)
    whole = all(part.isdecimal() and len(part) <= LONGEST_BLOCK for part in parts)
    numbers = sorted({int(part) for part in parts}) if whole else []
    if not numbers or numbers[0] < 1:
        raise ValueError(
            "'blocks' must be numbers from 1 separated by commas such as '3' or '2, 4', "
            f"got {quoted(text)}"
        )
    return tuple(numbers)


def parse_weights(text: str, count: int, name: str) -> Tensor:
    """One positive number for each of ``count`` reference pictures; equal ones for an empty text.

    Args:
        name: the name of the widget.

    Raises:
        ValueError: there are more or fewer, or something else than positive numbers.
    """
    parts = _parts(text)
    if not parts:
        return torch.ones(count)
    numbers = [weight_in(part) for part in parts[: count + 1]]
    if len(parts) != count or None in numbers:
        raise ValueError(
            f"'{name}' must be one positive number for each of the {count} reference pictures, "
            f"separated by commas, got {quoted(text)}"
        )
    return torch.tensor(numbers)


def _parts(text: str) -> list[str]:
    return text.replace(",", " ").split()
