"""Means of numbers of which some are missing: what is not seen in a picture has no energy."""

import math
from collections.abc import Iterable

__all__ = ["known_mean", "mean_in_words"]


def known_mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are there, neither None nor NaN; None where none is."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return sum(known) / len(known) if known else None


def mean_in_words(energies: Iterable[float | None], digits: int) -> str:
    """The mean with so many significant digits, or that there is none."""
    mean = known_mean(energies)
    return "no energy" if mean is None else f"{mean:.{digits}g}"
