"""Energy nodes of faces: whose face it is, and where its points are."""

import torch
from comfy_api.latest import io
from torch import Tensor

from ..guidance.energies import FaceIdentity, Landmarks
from ..guidance.energies.landmarks import POINT_GROUPS, chosen_points
from ..guidance.faces.crops import Faces, aligned_crops, box_crops
from ..guidance.faces.location import FaceLocator
from ..host.face_networks import (
    FaceRecognizer,
    LandmarkNetwork,
    reference_embedding,
    target_landmarks,
)
from . import sockets
from .bases import EnergyNode, Made
from .condition_inputs import REFERENCE_BATCH
from .face_references import faces_at
from .parsing.landmarks import parse_landmarks
from .picture_inputs import pictures, reference_mask_input, refuse_mask_alone

__all__ = ["NODES"]


class ZMagicFaceIdentity(EnergyNode):
    """Pull the face in the picture towards the person in photographs."""

    OWN_LAYOUT = "reference"

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicFaceIdentity",
            display_name="Face Identity Energy",
            description=(
                "Pulls the face in the picture towards the person in one or several photographs, "
                "as a face recognizer sees them."
            ),
            search_aliases=[
                "face likeness",
                "face id",
                "arcface",
                "same person",
                "portrait",
                "consistent character",
                "face swap",
                "IPAdapter",
                "InstantID",
                "PuLID",
            ],
            inputs=[
                sockets.FaceRecognizer.Input(
                    "recognizer", tooltip="The network that compares faces: Load Face Recognizer."
                ),
                io.Image.Input(
                    "reference",
                    tooltip=(
                        "Photographs of one person. Several in a batch are averaged, which "
                        "makes the likeness depend less on the light and expression of one of "
                        "them. One without a face is left out, with a warning."
                    ),
                ),
                sockets.FaceLocation.Input(
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
                io.Image.Output(
                    display_name="reference_crop",
                    tooltip=(
                        "What the recognizer sees of the references: the face, upright and filling "
                        "the picture. Look at it with Preview Image."
                    ),
                ),
            ],
        )

    @classmethod
    def energy(
        cls,
        recognizer: FaceRecognizer,
        reference: Tensor,
        face_location: FaceLocator | None = None,
        reference_mask: Tensor | None = None,
    ) -> Made:
        locator = face_location or FaceLocator()
        photographs = pictures(reference, "reference", reference_mask)
        faces, kept, warnings = faces_at("reference", photographs, locator)
        photographs = photographs[kept]
        embedding = reference_embedding(recognizer, photographs, faces)
        energy = FaceIdentity(recognizer, embedding, locator, layout=faces[0])
        crops = aligned_crops(photographs, faces, recognizer.size)
        return Made(energy, (_image(crops),), tuple(warnings))


class ZMagicLandmarks(EnergyNode):
    """Pull the points of the face towards those of a target."""

    OWN_LAYOUT = "target_image"

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicLandmarks",
            display_name="Landmark Energy",
            description=(
                "Pulls the points of the face - contour, brows, eyes, nose, mouth - to those of a "
                "target: its shape, expression and turn of the head."
            ),
            search_aliases=["face landmarks", "expression", "head pose"],
            inputs=[
                sockets.LandmarkNetwork.Input(
                    "landmark_network",
                    tooltip="The network that finds points: Load Landmark Network.",
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
                        "Which points count. eyes and mouth: the expression; contour: the "
                        "outline of jaw and cheeks. Parts are known for networks of 68 and 106 "
                        "points."
                    ),
                ),
                sockets.FaceLocation.Input(
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
                io.Image.Output(
                    display_name="target_crop",
                    tooltip=(
                        "What the network sees of the target image, gray where it has no face. "
                        "Look at it with Preview Image."
                    ),
                ),
            ],
        )

    @classmethod
    def energy(
        cls,
        landmark_network: LandmarkNetwork,
        landmarks: str,
        points: str,
        target_image: Tensor | None = None,
        face_location: FaceLocator | None = None,
        reference_mask: Tensor | None = None,
    ) -> Made:
        if (target_image is None) == (not landmarks.strip()):
            got = "neither" if target_image is None else "both"
            raise ValueError(
                f"expected a picture at 'target_image' or numbers in 'landmarks', got "
                f"{got}; connect one and leave the other empty"
            )
        locator = face_location or FaceLocator()
        chosen_points(points, landmark_network.points)
        if target_image is None:
            target = parse_landmarks(landmarks, landmark_network.points)[None]
            refuse_mask_alone(reference_mask, "target_image")
            energy = Landmarks(landmark_network, target, locator, points)
            return Made(energy, (_nothing(landmark_network),))
        photographs = pictures(target_image, "target_image", reference_mask)
        faces, kept, warnings = faces_at("target_image", photographs, locator)
        seen, count = photographs[kept], len(photographs)
        # Each image of the batch keeps its own target; one without a face asks for nothing.
        target = torch.full((count, landmark_network.points, 2), torch.nan)
        target[kept] = target_landmarks(landmark_network, seen, faces).to(target)
        layout = Faces.stacked([faces[kept.index(r) if r in kept else 0] for r in range(count)])
        crops = _nothing(landmark_network).repeat(count, 1, 1, 1)
        crops[kept] = _image(_seen(landmark_network, seen, faces)).to(crops)
        energy = Landmarks(landmark_network, target, locator, points, layout)
        return Made(energy, (crops,), tuple(warnings))


NODES = [ZMagicFaceIdentity, ZMagicLandmarks]


def _image(crops: Tensor) -> Tensor:
    """Turn crops ``[R, 3, s, s]`` into an IMAGE ``[R, s, s, 3]``."""
    return crops.detach().cpu().float().clamp(0.0, 1.0).movedim(1, -1).contiguous()


def _seen(landmark_network: LandmarkNetwork, photographs: Tensor, faces: Faces) -> Tensor:
    """What the network sees of photographs before its preprocessing, ``[R, 3, s, s]``."""
    size = landmark_network.preprocessing.size[0]
    return box_crops(photographs, faces, size, landmark_network.margin, landmark_network.square)[0]


def _nothing(landmark_network: LandmarkNetwork) -> Tensor:
    """Make the IMAGE that stands for a crop where there is none."""
    size = landmark_network.preprocessing.size[0]
    return torch.full((1, size, size, 3), 0.5)
