"""Energies of faces: whose face it is, and what shape it has."""

import torch
from comfy_api.latest import io
from torch import Tensor

from ..guidance.energies import FaceIdentity, Landmarks
from ..guidance.energies.landmarks import POINT_GROUPS, chosen_points, parse_landmarks
from ..guidance.faces.crops import Faces, aligned_crops, box_crops
from ..guidance.faces.location import FaceLocator
from ..host.face_networks import (
    FaceRecognizer,
    LandmarkRegressor,
    reference_embedding,
    target_landmarks,
)
from ..host.reference_faces import reference_faces
from .condition_inputs import (
    CATEGORY,
    REFERENCE_BATCH,
    SEARCH_ALIASES,
    appended,
    condition_inputs,
    conditions_output,
    pictures,
    reference_mask_input,
)
from .notices import notify
from .picture_inputs import refuse_mask_alone
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
                reference_mask_input("reference"),
            ],
            outputs=[
                conditions_output(),
                io.Image.Output(
                    display_name="reference_crop",
                    tooltip=(
                        "What the recogniser sees of the references: the face, upright and filling "
                        "the picture. Look at it with Preview Image."
                    ),
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        recognizer: FaceRecognizer,
        reference: Tensor,
        face_location: FaceLocator | None = None,
        reference_mask: Tensor | None = None,
        **common,
    ) -> io.NodeOutput:
        owner = "Face Identity Energy"
        locator = face_location or FaceLocator()
        photographs = pictures(reference, owner, mask=reference_mask)
        found = reference_faces(locator, photographs, owner, "reference")
        photographs, faces = photographs[list(found.kept)], found.faces
        embedding = reference_embedding(recognizer, photographs, faces)
        energy = FaceIdentity(recognizer, embedding, locator, layout=faces[0])
        crops = aligned_crops(photographs, faces, recognizer.size)
        notify(cls, found.warnings)
        return appended(owner, energy, (_image(crops),), **common)


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
                reference_mask_input("target_image"),
            ],
            outputs=[
                conditions_output(),
                io.Image.Output(
                    display_name="target_crop",
                    tooltip=(
                        "What the network sees of the target image, grey where it has no face. "
                        "Look at it with Preview Image."
                    ),
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        regressor: LandmarkRegressor,
        landmarks: str,
        points: str,
        target_image: Tensor | None = None,
        face_location: FaceLocator | None = None,
        reference_mask: Tensor | None = None,
        **common,
    ) -> io.NodeOutput:
        owner = "Landmark Energy"
        if (target_image is None) == (not landmarks.strip()):
            got = "neither" if target_image is None else "both"
            raise ValueError(
                f"{owner}: expected a picture at 'target_image' or numbers in 'landmarks', got "
                f"{got}; connect one and leave the other empty"
            )
        locator = face_location or FaceLocator()
        try:
            chosen_points(points, regressor.points)
            written = None if target_image is not None else landmarks
            target = written and parse_landmarks(written, regressor.points)[None]
        except ValueError as error:
            raise ValueError(f"{owner}: {error}") from None
        if target_image is None:
            refuse_mask_alone(reference_mask, owner, "target_image")
            energy = Landmarks(regressor, target, locator, points)
            return appended(owner, energy, (_nothing(regressor),), **common)
        photographs = pictures(target_image, owner, "target_image", reference_mask)
        found = reference_faces(locator, photographs, owner, "target_image")
        kept, count = list(found.kept), len(photographs)
        seen, faces = photographs[kept], found.faces
        # Each image of the batch keeps its own target; one without a face asks for nothing.
        target = torch.full((count, regressor.points, 2), torch.nan)
        target[kept] = target_landmarks(regressor, seen, faces).to(target)
        layout = Faces.stacked([faces[kept.index(r) if r in kept else 0] for r in range(count)])
        crops = _nothing(regressor).repeat(count, 1, 1, 1)
        crops[kept] = _image(_seen(regressor, seen, faces)).to(crops)
        notify(cls, found.warnings)
        energy = Landmarks(regressor, target, locator, points, layout)
        return appended(owner, energy, (crops,), **common)


NODES = [ZMagicFaceIdentity, ZMagicLandmarks]


def _image(crops: Tensor) -> Tensor:
    """Crops ``[R, 3, s, s]`` as an IMAGE."""
    return crops.detach().cpu().float().clamp(0.0, 1.0).movedim(1, -1).contiguous()


def _seen(regressor: LandmarkRegressor, photographs: Tensor, faces: Faces) -> Tensor:
    """What the network sees of photographs before its preprocessing, ``[R, 3, s, s]``."""
    size = regressor.preprocessing.size[0]
    return box_crops(photographs, faces, size, regressor.margin, regressor.square)[0]


def _nothing(regressor: LandmarkRegressor) -> Tensor:
    """The IMAGE of a crop that there is none of."""
    size = regressor.preprocessing.size[0]
    return torch.full((1, size, size, 3), 0.5)
