"""The attribute energies, one in each file."""

from ..energy import Energy, RandomEnergy, RunEnergy
from .brightness_map import BrightnessMap
from .color_palette import ColorPalette
from .depth import Depth
from .face_identity import FaceIdentity
from .image_similarity import ImageSimilarity, PatchSimilarity
from .landmarks import Landmarks
from .network_output import FaceOutput, NetworkOutput
from .normals import Normals
from .perceptual import Perceptual
from .pose import Pose
from .preference import Preference
from .reference_image import ReferenceImage
from .seamless import Seamless
from .segmentation import Segmentation
from .sharpness import Sharpness
from .sketch import Sketch
from .style import Style
from .symmetry import Symmetry
from .text import Text

__all__ = [
    "BrightnessMap",
    "ColorPalette",
    "Depth",
    "Energy",
    "FaceIdentity",
    "FaceOutput",
    "ImageSimilarity",
    "Landmarks",
    "NetworkOutput",
    "Normals",
    "PatchSimilarity",
    "Perceptual",
    "Pose",
    "Preference",
    "RandomEnergy",
    "ReferenceImage",
    "RunEnergy",
    "Seamless",
    "Segmentation",
    "Sharpness",
    "Sketch",
    "Style",
    "Symmetry",
    "Text",
]
