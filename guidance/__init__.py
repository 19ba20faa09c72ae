"""Z-Magic guidance in pure PyTorch: no host, no widgets, usable and testable by itself."""

from .conditions import Condition
from .energies import (
    ColorPalette,
    Energy,
    FaceIdentity,
    FaceOutput,
    ImageSimilarity,
    Landmarks,
    NetworkOutput,
    RandomEnergy,
    ReferenceImage,
    RunEnergy,
    Segmentation,
    Sketch,
    Style,
    Text,
)
from .engine import GuidedRun
from .pictures.preprocessing import Preprocessing
from .random_streams import RandomStreams
from .schedule import NoiseLevel, Schedule
from .settings import PRESETS, GuidanceSettings, preset
from .trace import Trace

__all__ = [
    "PRESETS",
    "ColorPalette",
    "Condition",
    "Energy",
    "FaceIdentity",
    "FaceOutput",
    "GuidanceSettings",
    "GuidedRun",
    "ImageSimilarity",
    "Landmarks",
    "NetworkOutput",
    "NoiseLevel",
    "Preprocessing",
    "RandomEnergy",
    "RandomStreams",
    "ReferenceImage",
    "RunEnergy",
    "Schedule",
    "Segmentation",
    "Sketch",
    "Style",
    "Text",
    "Trace",
    "preset",
]
