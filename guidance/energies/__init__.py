"""The attribute energies, one in each file."""

from ..energy import Energy, RandomEnergy, RunEnergy
from .color_palette import ColorPalette
from .face_identity import FaceIdentity
from .image_similarity import ImageSimilarity
from .landmarks import Landmarks
from .network_output import FaceOutput, NetworkOutput
from .reference_image import ReferenceImage
from .segmentation import Segmentation
from .sketch import Sketch
from .style import Style
from .text import Text

__all__ = [
    "ColorPalette",
    "Energy",
    "FaceIdentity",
    "FaceOutput",
    "ImageSimilarity",
    "Landmarks",
    "NetworkOutput",
    "RandomEnergy",
    "ReferenceImage",
    "RunEnergy",
    "Segmentation",
    "Sketch",
    "Style",
    "Text",
]
