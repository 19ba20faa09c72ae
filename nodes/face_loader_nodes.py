"""Loaders of the attribute networks of faces: recognizers and landmark networks."""

from pathlib import Path

from comfy_api.latest import io

from ..host.face_networks import (
    FaceRecognizer,
    LandmarkNetwork,
    LandmarkOptions,
    RecognizerOptions,
    find_landmark_network,
    find_recognizer,
    landmark_choices,
    load_landmark_network,
    load_recognizer,
    recognizer_choices,
)
from ..host.face_packs import first_choice
from . import sockets
from .bases import LoaderNode

__all__ = ["NODES"]

AUTOMATIC = "automatic"

# What stands for "as the file or its library has it" in a number field.
MEAN_FROM_FILE = -1.0
FROM_FILE = 0.0

CROPS = {AUTOMATIC: None, "square": True, "box": False}
RANGES = {AUTOMATIC: None, "-1 to 1": True, "0 to 1": False}


class ZMagicLoadFaceRecognizer(LoaderNode):
    """Load a network that tells people apart by their faces."""

    @classmethod
    def schema(cls) -> io.Schema:
        options = recognizer_choices()
        return io.Schema(
            node_id="ZMagicLoadFaceRecognizer",
            display_name="Load Face Recognizer",
            description=(
                "Loads a face recognition network of the ArcFace type from a pack of insightface "
                "or a single file, for the Face Identity Energy."
            ),
            search_aliases=["arcface", "insightface", "buffalo_l", "antelopev2", "auraface"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=options,
                    default=first_choice(options),
                    tooltip=(
                        "A pack of insightface, in which the recognizer is found, or a single "
                        "ONNX file, or a safetensors file with the weights of an IResNet. They "
                        "are looked for in models/insightface and models/onnx."
                    ),
                ),
                *_normalization_inputs(),
            ],
            outputs=[
                sockets.FaceRecognizer.Output(
                    display_name="recognizer",
                    tooltip="For the Face Identity Energy.",
                )
            ],
        )

    @classmethod
    def find(cls, model_name: str) -> Path:
        return find_recognizer(model_name)

    @classmethod
    def load(cls, path: Path, mean: float, std: float, color_order: str) -> FaceRecognizer:
        return load_recognizer(path, RecognizerOptions(**_normalization(mean, std, color_order)))


class ZMagicLoadLandmarkNetwork(LoaderNode):
    """Load a network that finds the points of a face."""

    @classmethod
    def schema(cls) -> io.Schema:
        options = landmark_choices()
        return io.Schema(
            node_id="ZMagicLoadLandmarkNetwork",
            display_name="Load Landmark Network",
            description=(
                "Loads a network that finds the points of a face inside its box, such as "
                "insightface's 106 points, for the Landmark Energy and for Locate Face."
            ),
            search_aliases=["2d106det", "face landmarks", "face keypoints", "68 points", "PFLD"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=options,
                    default=first_choice(options),
                    tooltip=(
                        "A pack of insightface, in which the network (2d106det.onnx) is found, or "
                        "a single ONNX file. They are looked for in models/insightface, "
                        "models/detection and models/onnx."
                    ),
                ),
                *_normalization_inputs(),
                io.Combo.Input(
                    "crop",
                    options=list(CROPS),
                    default=AUTOMATIC,
                    advanced=True,
                    tooltip=(
                        "What the network sees: a square around the face, or the face's box "
                        "stretched to a square. automatic: square for insightface's networks, box "
                        "for others."
                    ),
                ),
                io.Float.Input(
                    "margin",
                    default=FROM_FILE,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    round=False,
                    advanced=True,
                    tooltip=(
                        "How much larger than the face's box the crop is; 1 is the box itself. "
                        "0 is automatic: 1.5 for insightface's networks, 1 for others."
                    ),
                ),
                io.Combo.Input(
                    "output_range",
                    options=list(RANGES),
                    default=AUTOMATIC,
                    advanced=True,
                    tooltip=(
                        "The network's coordinates at the two edges of the crop. automatic: "
                        "-1 to 1 for insightface's networks, 0 to 1 for others."
                    ),
                ),
            ],
            outputs=[
                sockets.LandmarkNetwork.Output(
                    display_name="landmark_network",
                    tooltip="For the Landmark Energy, and for Locate Face to find eyes and mouth.",
                )
            ],
        )

    @classmethod
    def find(cls, model_name: str) -> Path:
        return find_landmark_network(model_name)

    @classmethod
    def load(
        cls,
        path: Path,
        mean: float,
        std: float,
        color_order: str,
        crop: str,
        margin: float,
        output_range: str,
    ) -> LandmarkNetwork:
        options = LandmarkOptions(
            **_normalization(mean, std, color_order),
            margin=None if margin == FROM_FILE else margin,
            square=CROPS[crop],
            signed=RANGES[output_range],
        )
        return load_landmark_network(path, options)


NODES = [ZMagicLoadFaceRecognizer, ZMagicLoadLandmarkNetwork]


def _normalization_inputs() -> list[io.Input]:
    """Make the inputs that tell both kinds of networks how their colors are scaled and ordered."""
    return [
        io.Float.Input(
            "mean",
            default=MEAN_FROM_FILE,
            min=-1.0,
            max=255.0,
            step=0.5,
            round=False,
            advanced=True,
            tooltip=(
                "What is subtracted from pixel values of 0 to 255 before the network. -1 is "
                "automatic: nothing if the file does it itself, else what the library does that "
                "made it (127.5 for insightface)."
            ),
        ),
        io.Float.Input(
            "std",
            default=FROM_FILE,
            min=0.0,
            max=256.0,
            step=0.5,
            round=False,
            advanced=True,
            tooltip=(
                "What they are divided by then. 0 is automatic: 1 if the file does it itself, "
                "else what the library does that made it (127.5 for insightface's recognizers)."
            ),
        ),
        io.Combo.Input(
            "color_order",
            options=["RGB", "BGR"],
            default="RGB",
            advanced=True,
            tooltip=(
                "The order of the colors that the network was trained on. insightface's networks "
                "want RGB; networks that see gray pictures do not mind."
            ),
        ),
    ]


def _normalization(mean: float, std: float, color_order: str) -> dict:
    return {
        "mean": None if mean == MEAN_FROM_FILE else mean,
        "std": None if std == FROM_FILE else std,
        "channels": color_order.lower(),
    }
