"""Points of a face as people write them: numbers, or lists of them."""

import re

import torch
from torch import Tensor

from ...guidance.wording import quoted

__all__ = ["parse_landmarks"]


def parse_landmarks(text: str, points: int) -> Tensor:
    """Points ``[P, 2]`` from numbers in text, x before y: ``0.31 0.42, ...`` or JSON lists.

    Raises:
        ValueError: there is something else than numbers, or not two for each of ``points``.
    """
    words = re.split(r"[\s,;()\[\]{}]+", text.strip(" \t\r\n,;()[]{}"))
    try:
        numbers = torch.tensor([float(word) for word in words])
    except ValueError:
        strange = next(word for word in words if not _is_number(word))
        raise ValueError(
            f"'landmarks' must be numbers, x and y of each point, got {quoted(strange, 20)}"
        ) from None
    if len(numbers) != 2 * points or not numbers.isfinite().all():
        raise ValueError(
            f"'landmarks' must be {2 * points} finite numbers, x and y of each of the network's "
            f"{points} points, got {len(numbers)}"
        )
    return numbers.unflatten(0, (points, 2))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
