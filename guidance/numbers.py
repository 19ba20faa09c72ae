"""Numbers that people write into texts."""

import math

__all__ = ["LARGEST_WEIGHT", "SMALLEST_WEIGHT", "number_in", "weight_in"]

# What counts against another by less, or more, could as well be left out; and sums of such numbers
# stay numbers in single precision.
SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-6, 1e6

# More digits than any number needs.
LONGEST = 40


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
