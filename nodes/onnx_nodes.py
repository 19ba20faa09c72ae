"""The nodes of networks from ONNX files: a loader, and an energy of any output."""

from pathlib import Path

import torch
from comfy_api.latest import io
from torch import Tensor

from ..guidance.energies import FaceOutput, NetworkOutput
from ..guidance.energies.network_output import (
    DISTANCES,
    class_target,
    features_first,
    value_target,
)
from ..guidance.errors import named
from ..guidance.faces.location import FaceLocator
from ..guidance.pictures.class_scores import ClassScores
from ..guidance.pictures.preprocessing import FITS
from ..guidance.wording import quoted
from ..host.image_networks import (
    NETWORK_SOURCE,
    NETWORKS,
    ImageNetwork,
    example,
    load_network,
    outputs_for,
    with_output,
)
from ..host.model_files import find_file, list_files, offered
from . import sockets
from .bases import EnergyNode, LoaderNode, Made
from .condition_inputs import REFERENCE_BATCH
from .face_references import faces_at
from .network_inputs import input_options, network_inputs
from .parsing.numbers import numbers_in
from .picture_inputs import pictures

__all__ = ["NODES"]

# What stands in the list of files while there is none.
NO_FILE = "network.onnx"

# Side of the pictures for a network that takes any size: that of most classifiers.
FREE_SIZE = 224

VALUE, CLASS, IMAGE = "value", "class", "image"

# Which distances make sense for which target.
POSSIBLE = {
    VALUE: ("squared error", "cosine"),
    CLASS: ("cross entropy",),
    IMAGE: ("squared error", "cosine", "cross entropy"),
}

# More classes than any classifier has.
MOST_CLASSES = 100_000


class ZMagicLoadOnnx(LoaderNode):
    """Load any network with one image input from an ONNX file."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicLoadOnnx",
            display_name="Load ONNX Network",
            description=(
                "Loads any network with one image input from an ONNX file: a classifier, a "
                "regressor, an embedding. For the ONNX Energy, and for the Style Energy."
            ),
            search_aliases=["onnx", "classifier", "regressor", "custom loss", "VGG", "Z-Magic"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=list_files(NETWORKS) or offered([], [NO_FILE]),
                    tooltip=(
                        "ONNX file in models/onnx (models/insightface, models/detection and "
                        "models/classifiers are searched too)."
                    ),
                ),
                *network_inputs(FREE_SIZE),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default=FITS[0],
                    advanced=True,
                    tooltip=(
                        "How pictures of another shape become the network's input. stretch: "
                        "everything is seen, a little distorted; crop: the middle, undistorted; "
                        "pad: everything, undistorted, with black beside it."
                    ),
                ),
            ],
            outputs=[
                sockets.OnnxNetwork.Output(
                    display_name="network",
                    tooltip="For the ONNX Energy, and for the Style Energy.",
                )
            ],
        )

    @classmethod
    def find(cls, model_name: str) -> Path:
        return find_file(NETWORKS, model_name, NETWORK_SOURCE)

    @classmethod
    def load(cls, path: Path, **preprocessing) -> ImageNetwork:
        return load_network(path, input_options(**preprocessing, free_size=FREE_SIZE))


class ZMagicOnnxEnergy(EnergyNode):
    """Pull an output of a network towards a target."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicOnnxEnergy",
            display_name="ONNX Energy",
            description=(
                "Pulls an output of any network towards a target: a value, a class, or its output "
                "for another picture. For every attribute that has no node of its own."
            ),
            search_aliases=["classifier guidance", "custom loss", "regressor"],
            inputs=[
                sockets.OnnxNetwork.Input(
                    "network", tooltip="The attribute network: Load ONNX Network."
                ),
                io.String.Input(
                    "output",
                    default="",
                    tooltip=(
                        "Which output is compared, by name or by number from 0. Empty: the first. "
                        "Tensors inside the network can be named as well."
                    ),
                ),
                io.Combo.Input(
                    "target_is",
                    options=[VALUE, CLASS, IMAGE],
                    default=VALUE,
                    tooltip=(
                        "value: the numbers in 'value', such as an age. class: 'class_index' of a "
                        "classifier, by cross entropy. image: the network's output for "
                        "'target_image', such as an embedding."
                    ),
                ),
                io.String.Input(
                    "value",
                    default="",
                    placeholder="35",
                    tooltip=(
                        "The target, if it is a value: one number for all of the output, or as "
                        "many as it has, separated by commas."
                    ),
                ),
                io.Int.Input(
                    "class_index",
                    default=0,
                    min=0,
                    max=MOST_CLASSES,
                    tooltip="The target, if it is a class: its number, counted from 0.",
                ),
                io.Image.Input(
                    "target_image",
                    optional=True,
                    tooltip=f"The target, if it is an image. Any size. {REFERENCE_BATCH}",
                ),
                io.Combo.Input(
                    "distance",
                    options=list(DISTANCES),
                    default=DISTANCES[0],
                    tooltip=(
                        "squared error: for values and features. cosine: for embeddings, whose "
                        "length does not matter. cross entropy: for classes, and for images as "
                        "distributions over classes."
                    ),
                ),
                sockets.FaceLocation.Input(
                    "face_location",
                    optional=True,
                    tooltip=(
                        "For networks that were trained on faces: where the face is (Locate "
                        "Face). They see a square around it, followed through the run. Not "
                        "connected: the picture, or the region's bounding box."
                    ),
                ),
                io.Float.Input(
                    "face_margin",
                    default=1.2,
                    min=0.5,
                    max=4.0,
                    step=0.05,
                    round=False,
                    advanced=True,
                    tooltip=(
                        "With a face location: side of the square in longer sides of the face's "
                        "box, which reaches from forehead to chin. Networks trained on whole heads "
                        "want 1.5 to 2."
                    ),
                ),
            ],
        )

    @classmethod
    def energy(
        cls,
        network: ImageNetwork,
        output: str,
        target_is: str,
        value: str,
        class_index: int,
        distance: str,
        face_margin: float,
        target_image: Tensor | None = None,
        face_location: FaceLocator | None = None,
    ) -> Made:
        _check(target_is, distance, target_image)
        network = with_output(network, output)
        found = features_first(example(network)[0])
        scores = _scores(found) if distance == "cross entropy" else None
        layout, warnings = None, []
        if target_is == VALUE:
            target = _value_target(value, found, distance)
        elif target_is == CLASS:
            with named("'class_index'"):
                target = class_target(class_index, scores.classes, found)
        else:
            photographs = pictures(target_image, "target_image")
            if face_location is not None:
                layout, kept, warnings = faces_at("target_image", photographs, face_location)
                photographs = photographs[kept]
            target = outputs_for(network, photographs, layout, face_margin)
            target = target if scores is None else scores.probabilities(target)
        energy = NetworkOutput(network.network, network.preprocessing, target, distance, scores)
        if face_location is not None:
            energy = FaceOutput(energy, face_location, layout, face_margin)
        return Made(energy, warnings=tuple(warnings))


NODES = [ZMagicLoadOnnx, ZMagicOnnxEnergy]


def _check(target_is: str, distance: str, target_image: Tensor | None) -> None:
    if distance not in POSSIBLE[target_is]:
        raise ValueError(
            f"'distance' is {distance}, expected {' or '.join(POSSIBLE[target_is])} for a target "
            f"that is '{target_is}'"
        )
    if (target_is == IMAGE) != (target_image is not None):
        raise ValueError(
            f"'target_is' is {target_is} and 'target_image' is "
            f"{'not ' if target_image is None else ''}connected; connect it for 'image' only"
        )


def _scores(output: Tensor) -> ClassScores:
    if output.shape[1] == 1 and output.ndim == 2:
        raise ValueError(
            "the output is a single number, which has no classes; choose 'value' at 'target_is'"
        )
    return ClassScores.inferred(output)


def _value_target(text: str, output: Tensor, distance: str) -> Tensor:
    numbers = numbers_in(text)
    if numbers is None:
        raise ValueError(
            f"'value' must be a number or several separated by commas, got {quoted(text)}"
        )
    if distance == "cosine" and (len(numbers) == 1 or not any(numbers)):
        raise ValueError(
            f"'value' must be as many numbers as the output has for cosine, {output.shape[1]}, "
            f"and not all 0, got {quoted(text)}"
        )
    with named("'value'"):
        return value_target(torch.tensor(numbers), output)
