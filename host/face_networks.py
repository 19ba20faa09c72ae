"""Face recognizers and landmark networks from files, under the host's memory management.

What a file needs before its first layer is in the file or in the conventions of the library that
made it; options overrule both.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import comfy.model_management
import comfy.utils
from torch import Tensor

from ..guidance.energies.face_identity import mean_embedding
from ..guidance.faces.crops import Faces
from ..guidance.faces.networks import FaceRecognizer, LandmarkNetwork
from ..guidance.networks.file_kinds import mishap
from ..guidance.networks.iresnet import iresnet_from_weights
from ..guidance.networks.onnx_header import read_onnx_header
from ..guidance.networks.onnx_signature import OnnxSignature
from ..guidance.pictures.preprocessing import Preprocessing
from ..guidance.wording import one_line
from .face_packs import PACK_PLACE, USUAL_PACK, choices, find_network
from .image_networks import ImageNetwork
from .model_files import ModelKind, Source
from .networks import Network, shared

__all__ = [
    "FaceRecognizer",
    "LandmarkOptions",
    "LandmarkNetwork",
    "RecognizerOptions",
    "find_recognizer",
    "find_landmark_network",
    "landmark_choices",
    "load_recognizer",
    "load_landmark_network",
    "recognizer_choices",
    "reference_embedding",
    "target_landmarks",
]

RECOGNIZERS = ModelKind("face recognizer", ("insightface", "onnx"), (".onnx", ".safetensors"))
LANDMARK_NETWORKS = ModelKind("landmark network", ("insightface", "detection", "onnx"), (".onnx",))

# Their names in buffalo_l, antelopev2 and AuraFace, buffalo_s.
RECOGNIZER_FILES = ("w600k_r50.onnx", "glintr100.onnx", "w600k_mbf.onnx")
LANDMARK_FILES = ("2d106det.onnx",)

RECOGNIZER_SOURCE = Source(
    "buffalo_l.zip of https://github.com/deepinsight/insightface/releases/tag/v0.7, unpacked; or "
    "AuraFace's glintr100.onnx (Apache-2.0) at https://huggingface.co/fal/AuraFace-v1",
    "275 MB",
    "buffalo_l for non-commercial research only",
    name=USUAL_PACK,
    place=PACK_PLACE,
)
LANDMARK_SOURCE = Source(
    "buffalo_l.zip of https://github.com/deepinsight/insightface/releases/tag/v0.7, unpacked "
    "(2d106det.onnx is in it); or that file alone, beside AuraFace at "
    "https://huggingface.co/fal/AuraFace-v1",
    "275 MB",
    "non-commercial research only",
    name=USUAL_PACK,
    place=PACK_PLACE,
)

# Side of the crops that ArcFace recognizers, and insightface's landmark networks, are trained on.
RECOGNIZER_SIZE = 112
INSIGHTFACE_LANDMARK_SIZE = 192

# What insightface's library subtracts and divides by, on the scale 0 to 255, for networks that do
# not do it themselves (model_zoo/arcface_onnx.py and landmark.py).
INSIGHTFACE_MEAN = 127.5
RECOGNIZER_STD, LANDMARK_STD = 127.5, 128.0
LARGEST_VALUE = 255.0

# Divisor of the other landmark networks, on the same scale: gray ones (as in the MIT-licensed
# network of the npm package faceplugin-face-recognition-js), and colored ones.
GRAY_STD, COLOR_STD = 256.0, 255.0

# Embeddings have a power of two of numbers, at least this many; coordinates of points never do.
LEAST_EMBEDDING = 64

# Five points, x and y.
LEAST_LANDMARKS = 10


@dataclass(frozen=True)
class RecognizerOptions:
    """How crops are prepared for a recognizer; None: as the file or its library has it.

    Args:
        mean, std: what is subtracted from pixel values of 0 to 255, and what they are divided by.
        channels: the order of the colors, "rgb" or "bgr".
    """

    mean: float | None = None
    std: float | None = None
    channels: str = "rgb"


@dataclass(frozen=True)
class LandmarkOptions(RecognizerOptions):
    """How faces are cropped and prepared for a landmark network, and what its outputs mean.

    Args:
        margin: the side of the crop in sides of the face's box.
        square: whether the crop is a square; otherwise the box is stretched to one.
        signed: whether coordinates run from -1 to 1 across the crop, otherwise from 0 to 1.
    """

    margin: float | None = None
    square: bool | None = None
    signed: bool | None = None


def recognizer_choices() -> list[str]:
    """List the packs and files that the recognizer's loader offers."""
    return choices(RECOGNIZERS, USUAL_PACK)


def landmark_choices() -> list[str]:
    """List the packs and files that the landmark network's loader offers."""
    return choices(LANDMARK_NETWORKS, USUAL_PACK)


def find_recognizer(name: str) -> Path:
    """Find the file of a recognizer; see ``find_network``."""
    return find_network(RECOGNIZERS, name, RECOGNIZER_SOURCE, _is_recognizer, RECOGNIZER_FILES)


def find_landmark_network(name: str) -> Path:
    """Find the file of a landmark network; see ``find_network``."""
    return find_network(
        LANDMARK_NETWORKS, name, LANDMARK_SOURCE, _is_landmark_network, LANDMARK_FILES
    )


def load_recognizer(path: Path, options: RecognizerOptions) -> FaceRecognizer:
    """Load a recognizer from an ONNX file, or from the weights of an IResNet in safetensors.

    Raises:
        ValueError: the file is no such network, or cannot be differentiated.
    """
    if path.suffix.lower() == ".safetensors":
        network = shared("iresnet", path, (), lambda: _iresnet(path))
        preprocessing = _preprocessing(
            network.module.side, INSIGHTFACE_MEAN, RECOGNIZER_STD, options
        )
        return FaceRecognizer(network, preprocessing)

    header = read_onnx_header(path)
    if not _is_recognizer(header):
        raise ValueError(
            f"{path.name} is no face recognizer: expected one image input [1, 3, "
            f"{RECOGNIZER_SIZE}, {RECOGNIZER_SIZE}] and one embedding as output, such as "
            f"[1, 512], got {header}"
        )
    mean, std = (0.0, 1.0) if header.normalizes else (INSIGHTFACE_MEAN, RECOGNIZER_STD)
    preprocessing = _preprocessing(RECOGNIZER_SIZE, mean, std, options)
    return FaceRecognizer(ImageNetwork(path, preprocessing).network, preprocessing)


def load_landmark_network(path: Path, options: LandmarkOptions) -> LandmarkNetwork:
    """Load a landmark network from an ONNX file.

    A network of 192 x 192 color pixels is one of insightface; others are taken to see the face's
    box stretched to their input, and to answer in fractions of it.

    Raises:
        ValueError: the file is no such network, or cannot be differentiated.
    """
    header = read_onnx_header(path)
    if not _is_landmark_network(header):
        raise ValueError(
            f"{path.name} is no landmark network: expected one square image input [1, 3 or 1, "
            "height, width] and one output with x and y of each point, such as [1, 136] or "
            f"[1, 212], got {header}"
        )
    size, gray = header.input[2], header.input[1] == 1
    insightface = size == INSIGHTFACE_LANDMARK_SIZE and not gray
    if insightface:
        mean, std = (0.0, 1.0) if header.normalizes else (INSIGHTFACE_MEAN, LANDMARK_STD)
    else:
        mean, std = 0.0, GRAY_STD if gray else COLOR_STD
    preprocessing = _preprocessing(size, mean, std, options, gray)
    return LandmarkNetwork(
        ImageNetwork(path, preprocessing).network,
        preprocessing,
        points=_numbers(header) // 2,
        margin=options.margin or (1.5 if insightface else 1.0),
        square=insightface if options.square is None else options.square,
        signed=insightface if options.signed is None else options.signed,
    )


def reference_embedding(recognizer: FaceRecognizer, pictures: Tensor, faces: Faces) -> Tensor:
    """Compute ``mean_embedding`` ``[D]`` outside sampling, once per content."""
    return recognizer.network.reference(
        lambda x, points: mean_embedding(recognizer, x, faces),
        pictures.float(),
        faces.points,
        key=("identity", recognizer.preprocessing),
    )


def target_landmarks(landmark_network: LandmarkNetwork, pictures: Tensor, faces: Faces) -> Tensor:
    """Find the points ``[R, P, 2]`` in crops of pictures, outside sampling, once per content."""
    how = (
        landmark_network.preprocessing,
        landmark_network.margin,
        landmark_network.square,
        landmark_network.signed,
    )
    return landmark_network.network.reference(
        lambda x, boxes: landmark_network.in_crop(x, faces),
        pictures.float(),
        faces.boxes,
        key=("landmarks", *how),
    )


def _iresnet(path: Path) -> Network:
    try:
        weights = comfy.utils.load_torch_file(str(path), safe_load=True)
    except Exception as error:  # safetensors raises its own kinds
        known = mishap(path)
        said = f" but {known}" if known else f": download it again\n({one_line(error)})"
        raise ValueError(f"{path.name} is not a readable safetensors file{said}") from error
    return Network(iresnet_from_weights(weights, path.name), path.name)


def _preprocessing(
    size: int, mean: float, std: float, options: RecognizerOptions, gray: bool = False
) -> Preprocessing:
    """Bring mean and std from the scale 0 to 255, on which libraries state them, to [0, 1]."""
    mean = mean if options.mean is None else options.mean
    std = std if options.std is None else options.std
    return Preprocessing(
        (size, size),
        (mean / LARGEST_VALUE,),
        (std / LARGEST_VALUE,),
        "gray" if gray else options.channels,
    )


def _numbers(header: OnnxSignature) -> int | None:
    """How many numbers the output has for one picture, None if that is free."""
    return None if None in header.output[1:] else prod(header.output[1:])


def _is_recognizer(header: OnnxSignature) -> bool:
    shape = header.input
    return (
        len(shape) == 4
        and shape[1] in (3, None)
        and shape[2:] in ((RECOGNIZER_SIZE, RECOGNIZER_SIZE), (None, None))
        and len(header.output) > 1
        and _numbers(header) is not None
        and _is_embedding(_numbers(header))
    )


def _is_landmark_network(header: OnnxSignature) -> bool:
    shape = header.input
    return (
        len(shape) == 4
        and shape[1] in (1, 3)
        and shape[2] is not None
        and shape[2] == shape[3]
        and len(header.output) > 1
        and _numbers(header) is not None
        and _numbers(header) % 2 == 0
        and _numbers(header) >= LEAST_LANDMARKS
        and not _is_embedding(_numbers(header))
    )


def _is_embedding(numbers: int) -> bool:
    return numbers >= LEAST_EMBEDDING and numbers & (numbers - 1) == 0
