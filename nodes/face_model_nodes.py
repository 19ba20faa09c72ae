"""Loaders of the networks that judge faces."""

from comfy_api.latest import io

from ..host.face_networks import (
    LandmarkOptions,
    RecognizerOptions,
    find_recognizer,
    find_regressor,
    landmark_choices,
    load_recognizer,
    load_regressor,
    recognizer_choices,
)
from ..host.face_packs import first_choice
from ..host.model_files import usable_name
from ..host.networks import stamp_of
from .sockets import FaceRecognizer, LandmarkNetwork
from .titles import title

__all__ = ["NODES"]

CATEGORY = "Z-Magic/models"

AUTOMATIC = "automatic"

# What stands for "as the file or its library has it" in a number field.
MEAN_FROM_FILE = -1.0
FROM_FILE = 0.0

CROPS = {AUTOMATIC: None, "square": True, "box": False}
RANGES = {AUTOMATIC: None, "-1 to 1": True, "0 to 1": False}


class ZMagicLoadFaceRecognizer(io.ComfyNode):
    """A network that tells people apart."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        options = recognizer_choices()
        return io.Schema(
            node_id="ZMagicLoadFaceRecognizer",
            display_name="Load Face Recognizer",
            category=CATEGORY,
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
                        "A pack of insightface, in which the recogniser is found, or a single "
                        "ONNX file, or a safetensors file with the weights of an IResNet. They "
                        "are looked for in models/insightface."
                    ),
                ),
                *_normalization_inputs(),
            ],
            outputs=[
                FaceRecognizer.Output(
                    display_name="recognizer",
                    tooltip="For the Face Identity Energy.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, model_name: str = "") -> bool | str:
        return usable_name(model_name, "model_name")

    @classmethod
    def fingerprint_inputs(cls, model_name: str = "", **_) -> tuple:
        return stamp_of(lambda: find_recognizer(model_name, ""), model_name)

    @classmethod
    def execute(cls, model_name: str, mean: float, std: float, color_order: str) -> io.NodeOutput:
        owner = title(cls)
        path = find_recognizer(model_name, owner)
        options = RecognizerOptions(**_normalization(mean, std, color_order))
        try:
            return io.NodeOutput(load_recognizer(path, options))
        except ValueError as error:
            raise ValueError(f"{owner}: {error}") from error


class ZMagicLoadLandmarkRegressor(io.ComfyNode):
    """A network that finds the points of a face."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        options = landmark_choices()
        return io.Schema(
            node_id="ZMagicLoadLandmarkRegressor",
            display_name="Load Landmark Regressor",
            category=CATEGORY,
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
                        "a single ONNX file. They are looked for in models/insightface."
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
                LandmarkNetwork.Output(
                    display_name="regressor",
                    tooltip="For the Landmark Energy, and for Locate Face to find eyes and mouth.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, model_name: str = "") -> bool | str:
        return usable_name(model_name, "model_name")

    @classmethod
    def fingerprint_inputs(cls, model_name: str = "", **_) -> tuple:
        return stamp_of(lambda: find_regressor(model_name, ""), model_name)

    @classmethod
    def execute(
        cls,
        model_name: str,
        mean: float,
        std: float,
        color_order: str,
        crop: str,
        margin: float,
        output_range: str,
    ) -> io.NodeOutput:
        owner = title(cls)
        path = find_regressor(model_name, owner)
        options = LandmarkOptions(
            **_normalization(mean, std, color_order),
            margin=None if margin == FROM_FILE else margin,
            square=CROPS[crop],
            signed=RANGES[output_range],
        )
        try:
            return io.NodeOutput(load_regressor(path, options))
        except ValueError as error:
            raise ValueError(f"{owner}: {error}") from error


NODES = [ZMagicLoadFaceRecognizer, ZMagicLoadLandmarkRegressor]


def _normalization_inputs() -> list[io.Input]:
    """What both networks may need to be told about the colours that they see."""
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
                "else what the library does that made it (127.5 for insightface's recognisers)."
            ),
        ),
        io.Combo.Input(
            "color_order",
            options=["RGB", "BGR"],
            default="RGB",
            advanced=True,
            tooltip=(
                "The order of the colours that the network was trained on. insightface's networks "
                "want RGB; networks that see grey pictures do not mind."
            ),
        ),
    ]


def _normalization(mean: float, std: float, color_order: str) -> dict:
    return {
        "mean": None if mean == MEAN_FROM_FILE else mean,
        "std": None if std == FROM_FILE else std,
        "channels": color_order.lower(),
    }
