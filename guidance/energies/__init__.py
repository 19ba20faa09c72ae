"""One file per attribute energy."""

from .color_palette import ColorPalette
from .energy import Energy, RunEnergy
from .reference_image import ReferenceImage
from .sketch import Sketch

__all__ = ["ColorPalette", "Energy", "ReferenceImage", "RunEnergy", "Sketch"]
