"""Three conditions that need no network: what a photograph looks like."""

import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import ColorPalette, ReferenceImage, Sketch

__all__ = ["photograph_conditions"]


def photograph_conditions(photograph: torch.Tensor) -> tuple[Condition, ...]:
    """Colors, edges and likeness of ``photograph [1, 3, H, W]``: three conditions."""
    return (
        Condition("palette", ColorPalette(reference=photograph)),
        Condition("sketch", Sketch(photograph)),
        Condition("reference", ReferenceImage(photograph)),
    )
