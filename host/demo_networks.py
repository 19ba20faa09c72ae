"""The small networks that judge the demo model's pictures, so that every energy can be tried.

They are loaded as users' files are: nothing here knows how they were trained.
"""

from dataclasses import dataclass
from pathlib import Path

from ..guidance.faces.location import FaceLocator
from ..guidance.faces.points import FivePoints
from .demo_model import AVERAGE_FACE, FOLDER, demo_file
from .face_networks import (
    FaceRecognizer,
    LandmarkOptions,
    LandmarkRegressor,
    RecognizerOptions,
    load_recognizer,
    load_regressor,
)
from .image_networks import IMAGENET, ImageNetwork, InputOptions, load_network
from .networks import file_stamp
from .openclip import OpenClip, load_openclip
from .openclip_weights import open_clip

__all__ = [
    "CLIP_FILE",
    "LANDMARKS_FILE",
    "PARSER_FILE",
    "RECOGNISER_FILE",
    "DemoNetworks",
    "demo_clip",
    "demo_landmarks",
    "demo_locator",
    "demo_parser",
    "demo_recogniser",
    "demo_stamps",
    "load_demo_networks",
]

CLIP_FILE = FOLDER / "zmagic_demo_clip.safetensors"
PARSER_FILE = FOLDER / "zmagic_demo_parser.onnx"
RECOGNISER_FILE = FOLDER / "zmagic_demo_recognizer.safetensors"
LANDMARKS_FILE = FOLDER / "zmagic_demo_landmarks.onnx"

# What open_clip must know of the architecture lies beside the weights.
CONFIGURATION = ".json"


@dataclass(frozen=True, eq=False)
class DemoNetworks:
    """One network for each kind of attribute."""

    clip: OpenClip
    parser: ImageNetwork
    recogniser: FaceRecognizer
    landmarks: LandmarkRegressor


def load_demo_networks(owner: str) -> DemoNetworks:
    """All of them, each once for all who ask.

    Args:
        owner: the node's title.

    Raises:
        FileNotFoundError: one is not there.
        ValueError: a Python package is missing that a loader needs, or a file is damaged; the
            message starts with ``owner``.
    """
    clip = demo_clip(owner)
    try:
        judges = demo_parser(), demo_recogniser(), demo_landmarks()
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from error
    return DemoNetworks(clip, *judges)


def demo_clip(owner: str, path: Path = CLIP_FILE) -> OpenClip:
    """Text and image towers of an architecture that is called like the file.

    ValueErrors start with ``owner``.
    """
    module = open_clip(owner)
    if path.stem not in module.list_models():
        module.add_model_config(demo_file(path.with_suffix(CONFIGURATION)))
    return load_openclip(
        path.stem, demo_file(path), owner, normalization="OpenAI", activation="GELU"
    )


def demo_parser(path: Path = PARSER_FILE) -> ImageNetwork:
    """Pictures to maps of the scores of eight classes."""
    return load_network(demo_file(path), InputOptions(*IMAGENET), output="")


def demo_recogniser(path: Path = RECOGNISER_FILE) -> FaceRecognizer:
    """Embeddings of aligned faces."""
    return load_recognizer(demo_file(path), RecognizerOptions())


def demo_landmarks(path: Path = LANDMARKS_FILE) -> LandmarkRegressor:
    """68 points of a face in its box."""
    return load_regressor(demo_file(path), LandmarkOptions())


def demo_locator(landmarks: LandmarkRegressor) -> FaceLocator:
    """Where the demo model's portraits have their faces: near the average place, by landmarks."""
    return FaceLocator(
        fixed=AVERAGE_FACE,
        fixed_in_reference=True,
        points=FivePoints(landmarks),
    )


def demo_stamps() -> tuple:
    """For a node's fingerprint: changes when one of the files does, or comes, or goes."""
    weights = (CLIP_FILE, PARSER_FILE, RECOGNISER_FILE, LANDMARKS_FILE)
    files = (*weights, CLIP_FILE.with_suffix(CONFIGURATION))
    return tuple(file_stamp(file) if file.is_file() else file.name for file in files)
