"""Energies of faces: whose face it is, and what shape it has."""

from comfy_api.latest import io
from torch import Tensor

from ..guidance.energies import FaceIdentity, Landmarks
from ..guidance.energies.landmarks import POINT_GROUPS, chosen_points, parse_landmarks
from ..guidance.face_location import FaceLocator
from ..host.face_networks import (
    FaceRecognizer,
    LandmarkRegressor,
    faces_in,
    reference_embedding,
    target_landmarks,
)
from .condition_inputs import (
    CATEGORY,
    REFERENCE_BATCH,
    SEARCH_ALIASES,
    appended,
    condition_inputs,
    conditions_output,
    pictures,
)
from .sockets import FaceLocation, LandmarkNetwork
from .sockets import FaceRecognizer as FaceRecognizerSocket

__all__ = ["NODES"]


class ZMagicFaceIdentity(io.ComfyNode):
    """Whose face it is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicFaceIdentity",
            display_name="Face Identity Energy",
            category=CATEGORY,
            description=(
                "Pulls the face in the picture towards the person in one or several photographs, "
                "as a face recogniser sees them."
            ),
            search_aliases=[*SEARCH_ALIASES, "face likeness", "face id", "arcface", "same person"],
            inputs=[
                FaceRecognizerSocket.Input(
                    "recognizer", tooltip="The network that compares faces: Load Face Recognizer."
                ),
                io.Image.Input(
                    "reference",
                    tooltip=(
                        "Photographs of one person. Several in a batch are averaged, which makes "
                        "the likeness depend less on the light and expression of one of them."
                    ),
                ),
                *condition_inputs(),
                FaceLocation.Input(
                    "face_location",
                    optional=True,
                    tooltip=(
                        "Where the face is: Locate Face. Not connected: the picture, or the "
                        "region's bounding box, and the reference are taken for portraits that "
                        "are cropped to the face."
                    ),
                ),
            ],
            outputs=[conditions_output()],
        )

    @classmethod
    def execute(
        cls,
        recognizer: FaceRecognizer,
        reference: Tensor,
        face_location: FaceLocator | None = None,
        **common,
    ) -> io.NodeOutput:
        owner = "Face Identity Energy"
        locator = face_location or FaceLocator()
        photographs = pictures(reference, owner)
        faces = faces_in(locator, photographs, owner, "reference")
        embedding = reference_embedding(recognizer, photographs, faces)
        energy = FaceIdentity(recognizer, embedding, locator, layout=faces[0])
        return appended(owner, energy, _networks(recognizer, locator), **common)


class ZMagicLandmarks(io.ComfyNode):
    """The shape of the face."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicLandmarks",
            display_name="Landmark Energy",
            category=CATEGORY,
            description=(
                "Pulls the points of the face - contour, brows, eyes, nose, mouth - to those of a "
                "target: its shape, expression and turn of the head."
            ),
            search_aliases=[*SEARCH_ALIASES, "face landmarks", "expression", "head pose"],
            inputs=[
                LandmarkNetwork.Input(
                    "regressor", tooltip="The network that finds points: Load Landmark Regressor."
                ),
                io.Image.Input(
                    "target_image",
                    optional=True,
                    tooltip=(
                        "The face whose points the picture's should match, whoever it is. "
                        f"{REFERENCE_BATCH} Connect this or write landmarks."
                    ),
                ),
                io.String.Input(
                    "landmarks",
                    default="",
                    multiline=True,
                    placeholder="0.31, 0.42, 0.32, 0.47, ...",
                    advanced=True,
                    tooltip=(
                        "Instead of a target image: x and y of every point of the network, as "
                        "fractions of the face crop that it sees, in plain numbers or JSON lists. "
                        "(0, 0) is the crop's upper left corner. Empty: use the target image."
                    ),
                ),
                io.Combo.Input(
                    "points",
                    options=list(POINT_GROUPS),
                    default="all",
                    tooltip=(
                        "Which points count. eyes and mouth: the expression; contour: the outline "
                        "of jaw and cheeks."
                    ),
                ),
                *condition_inputs(),
                FaceLocation.Input(
                    "face_location",
                    optional=True,
                    tooltip=(
                        "Where the face is: Locate Face. Not connected: the picture, or the "
                        "region's bounding box, and the target are taken for portraits that are "
                        "cropped to the face."
                    ),
                ),
            ],
            outputs=[conditions_output()],
        )

    @classmethod
    def execute(
        cls,
        regressor: LandmarkRegressor,
        landmarks: str,
        points: str,
        target_image: Tensor | None = None,
        face_location: FaceLocator | None = None,
        **common,
    ) -> io.NodeOutput:
        owner = "Landmark Energy"
        if (target_image is None) == (not landmarks.strip()):
            got = "neither" if target_image is None else "both"
            raise ValueError(
                f"{owner}: expected a picture at 'target_image' or numbers in 'landmarks', got "
                f"{got}; connect one and leave the other empty"
            )
        locator, layout = face_location or FaceLocator(), None
        try:
            chosen_points(points, regressor.points)
            if target_image is None:
                target = parse_landmarks(landmarks, regressor.points)[None]
        except ValueError as error:
            raise ValueError(f"{owner}: {error}") from None
        if target_image is not None:
            photographs = pictures(target_image, owner, "target_image")
            layout = faces_in(locator, photographs, owner, "target_image")
            target = target_landmarks(regressor, photographs, layout)
        energy = Landmarks(regressor, target, locator, points, layout)
        return appended(owner, energy, _networks(regressor, locator), **common)


NODES = [ZMagicFaceIdentity, ZMagicLandmarks]


def _networks(judge: FaceRecognizer | LandmarkRegressor, locator: FaceLocator) -> tuple:
    """All networks that the energy runs, once each."""
    return tuple(dict.fromkeys((judge.network, *locator.networks)))
