"""The small attribute networks that know the demo model's pictures, so that energies can be tried.

They are loaded as users' files are: nothing here knows how they were trained.
"""

from dataclasses import dataclass
from pathlib import Path

from ..guidance.faces.location import FaceLocator
from ..guidance.faces.points import FivePoints
from .demo_model import AVERAGE_FACE, FOLDER, demo_file
from .face_networks import (
    FaceRecognizer,
    LandmarkNetwork,
    LandmarkOptions,
    RecognizerOptions,
    load_landmark_network,
    load_recognizer,
)
from .image_networks import IMAGENET, ImageNetwork, InputOptions, load_network
from .networks import file_stamp
from .openclip import OpenClip, load_openclip
from .openclip_weights import open_clip

__all__ = [
    "CLIP_FILE",
    "LANDMARKS_FILE",
    "PARSER_FILE",
    "RECOGNIZER_FILE",
    "DemoNetworks",
    "demo_clip",
    "demo_landmarks",
    "demo_locator",
    "demo_parser",
    "demo_recognizer",
    "demo_stamps",
    "load_demo_networks",
]

CLIP_FILE = FOLDER / "zmagic_demo_clip.safetensors"
PARSER_FILE = FOLDER / "zmagic_demo_parser.onnx"
RECOGNIZER_FILE = FOLDER / "zmagic_demo_recognizer.safetensors"
LANDMARKS_FILE = FOLDER / "zmagic_demo_landmarks.onnx"

# What open_clip must know of the architecture lies beside the weights.
CONFIGURATION = ".json"


@dataclass(frozen=True, eq=False)
class DemoNetworks:
    """One network for each kind of attribute."""

    clip: OpenClip
    parser: ImageNetwork
    recognizer: FaceRecognizer
    landmarks: LandmarkNetwork


def load_demo_networks() -> DemoNetworks:
    """Load all of them; each is loaded once and shared.

    Raises:
        FileNotFoundError: one is not there.
        ValueError: a Python package is missing that a loader needs, or a file is damaged.
    """
    clip = demo_clip()
    others = demo_parser(), demo_recognizer(), demo_landmarks()
    return DemoNetworks(clip, *others)


def demo_clip(path: Path = CLIP_FILE) -> OpenClip:
    """Load the CLIP, whose architecture is called like its file: text and image towers."""
    module = open_clip()
    if path.stem not in module.list_models():
        module.add_model_config(demo_file(path.with_suffix(CONFIGURATION)))
    return load_openclip(path.stem, demo_file(path), normalization="OpenAI", activation="GELU")


def demo_parser(path: Path = PARSER_FILE) -> ImageNetwork:
    """Load the face parser: pictures to maps of the scores of eight classes."""
    return load_network(demo_file(path), InputOptions(*IMAGENET), output="")


def demo_recognizer(path: Path = RECOGNIZER_FILE) -> FaceRecognizer:
    """Load the recognizer: aligned faces to embeddings."""
    return load_recognizer(demo_file(path), RecognizerOptions())


def demo_landmarks(path: Path = LANDMARKS_FILE) -> LandmarkNetwork:
    """Load the landmark network: 68 points of a face in its box."""
    return load_landmark_network(demo_file(path), LandmarkOptions())


def demo_locator(landmarks: LandmarkNetwork) -> FaceLocator:
    """Make the locator of faces in the demo portraits: by landmarks, near the average place."""
    return FaceLocator(
        fixed=AVERAGE_FACE,
        fixed_in_reference=True,
        points=FivePoints(landmarks),
    )


def demo_stamps() -> tuple:
    """Make the files' stamps for a node's fingerprint: they change as files change, come or go."""
    weights = (CLIP_FILE, PARSER_FILE, RECOGNIZER_FILE, LANDMARKS_FILE)
    files = (*weights, CLIP_FILE.with_suffix(CONFIGURATION))
    return tuple(file_stamp(file) if file.is_file() else file.name for file in files)
