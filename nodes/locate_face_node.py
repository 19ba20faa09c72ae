"""The node that locates the face: by a detector that follows the run, or at a fixed place."""

from pathlib import Path

import torch
from comfy_api.latest import io

from ..guidance.faces.crops import Faces
from ..guidance.faces.crowds import Crowd
from ..guidance.faces.detections import CHOICES
from ..guidance.faces.location import FALLBACKS, FaceLocator
from ..guidance.faces.networks import LandmarkNetwork
from ..guidance.faces.points import POINT_SETS, FivePoints
from ..host.detections import faces_in_boxes, faces_in_landmarks
from ..host.face_detectors import detector_choices, find_detector, load_detector
from ..host.face_packs import first_choice
from ..host.model_files import usable_name
from ..host.networks import stamp_of
from . import sockets
from .bases import LOADERS, Node

__all__ = ["NODES"]

DETECTOR, LANDMARKS, BOX = "detector", "face landmarks", "bounding box"
FIXED, WHOLE = "fixed box", "whole picture"

# What a reference shows, for the methods that are told a place of the picture.
CROPPED, FRAMED_ALIKE = "cropped to the face", "framed like the picture"

# What to do about a run in which no face is found.
NOT_DETECTED = "Lower 'min_score' at Locate Face, or choose the method 'fixed box' there"
NOT_AT_PLACE = "Correct the place at Locate Face"

FaceLandmarks = io.Custom("FACE_LANDMARKS")  # of ComfyUI's MediaPipe node


class ZMagicLocateFace(Node):
    """Tell the face energies where the face is."""

    @classmethod
    def schema(cls) -> io.Schema:
        detectors = detector_choices()
        return io.Schema(
            node_id="ZMagicLocateFace",
            display_name="Locate Face",
            category=LOADERS,
            description=(
                "Tells the face energies where the face is. A detector finds it in the reference, "
                "and follows it in the picture while it is made."
            ),
            search_aliases=[
                "face detector",
                "face alignment",
                "face box",
                "SCRFD",
                "UltraFace",
                "insightface",
                "Z-Magic",
            ],
            inputs=[
                io.DynamicCombo.Input(
                    "method",
                    options=[io.DynamicCombo.Option(*method) for method in _methods().items()],
                    tooltip=(
                        "detector: the face is looked for, in the reference and again and again "
                        "in the picture. face landmarks, bounding box, fixed box: it is kept at "
                        "one place of the picture. whole picture: its center square, or the "
                        "region's, is taken for an aligned face."
                    ),
                ),
                # Not one of the method's: ComfyUI would refuse a file that is not there without
                # saying where to get it.
                io.Combo.Input(
                    "detector",
                    options=detectors,
                    default=first_choice(detectors),
                    tooltip=(
                        "For method detector: a pack of insightface (for non-commercial research "
                        "only) or a file, UltraFace's too (MIT license)."
                    ),
                ),
            ],
            outputs=[
                sockets.FaceLocation.Output(
                    display_name="face_location",
                    tooltip="Connect to face_location of Face Identity and Landmark Energy.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, method: dict | None = None, detector: str = "") -> bool | str:
        """Leave a missing detector to the run of the node, which says where to get it.

        ComfyUI hands on no method that it does not know, and says nothing of it.
        """
        fits = usable_name(detector, "detector")
        if fits is True and method is None:
            return f"'method' must be one of {', '.join(_methods())}"
        return fits

    @classmethod
    def fingerprint_inputs(cls, method: dict, detector: str = "") -> tuple:
        """Change with the detector's file."""
        if method["method"] != DETECTOR:
            return ()
        return stamp_of(lambda: find_detector(detector), detector)

    @classmethod
    def run(cls, method: dict, detector: str) -> io.NodeOutput:
        chosen = {name: value for name, value in method.items() if name != "method"}
        if method["method"] == DETECTOR:
            return io.NodeOutput(_detecting(find_detector(detector), **chosen))
        return io.NodeOutput(_PLACES[method["method"]](**chosen))


NODES = [ZMagicLocateFace]


def _methods() -> dict[str, list[io.Input]]:
    """The inputs of each method, by its name."""
    face = _choice(
        "Which of several faces. With a region at the energy, of those whose center lies in the "
        "region. most in the region: the one whose box lies most in it, so that several people "
        "share this node; without a region the largest."
    )
    given_face = _choice(
        "Which of several faces, wherever a region is. most in the region: the one whose box lies "
        "most in the region at the energy, so that several people share this node; without a "
        "region the largest."
    )
    reference_is = io.Combo.Input(
        "reference_is",
        options=[CROPPED, FRAMED_ALIKE],
        default=CROPPED,
        tooltip=(
            "cropped to the face: the center square of the reference is taken for an aligned "
            "face. framed like the picture: its face is at the place that is given for the "
            "picture."
        ),
    )
    near_place = [
        _landmark_network(
            "Finds eyes, nose and mouth near that place, again and again. Not connected: they are "
            "taken to be where they are in an average face."
        ),
        _refresh_every("With a landmark network: look again after this many steps."),
    ]
    return {
        DETECTOR: [
            face,
            _landmark_network(
                "Finds eyes, nose and mouth in the box of a detector that finds none, such as "
                "UltraFace. Not connected: they are taken to be where they are in an average face."
            ),
            io.Float.Input(
                "min_score",
                default=0.6,
                min=0.01,
                max=1.0,
                step=0.01,
                round=False,
                tooltip=(
                    "How certain it has to be. Less finds the face in an earlier, more blurred "
                    "picture, and sooner something that is none. 0.5 to 0.8 is good."
                ),
            ),
            _refresh_every(
                "Look again after this many steps. 1 follows every move; a picture without a face "
                "yet is looked at in every step."
            ),
            io.Combo.Input(
                "fallback",
                options=list(FALLBACKS),
                default=FALLBACKS[0],
                tooltip=(
                    "Where a face is assumed until the first one is found. reference: where it is "
                    "in the reference. center: in the center of the region, of the picture without "
                    "one."
                ),
            ),
        ],
        LANDMARKS: [
            FaceLandmarks.Input(
                "face_landmarks",
                tooltip=(
                    "From Detect Face Landmarks (MediaPipe), of a picture whose composition the "
                    "new one keeps, such as the first pass."
                ),
            ),
            given_face,
            reference_is,
        ],
        BOX: [
            io.BoundingBox.Input(
                "bounding_box",
                force_input=True,
                tooltip="The face's box in pixels, from any node of ComfyUI that makes boxes.",
            ),
            *(
                io.Int.Input(
                    f"picture_{side}",
                    default=0,
                    min=0,
                    max=1 << 16,
                    tooltip=(
                        f"The {side} in pixels of the picture that the box is of, such as Get "
                        "Image Size gives it. It may have another size than the one to be made."
                    ),
                )
                for side in ("width", "height")
            ),
            given_face,
            reference_is,
            *near_place,
        ],
        FIXED: [
            _fraction("x", 0.3, "The box's left edge as a fraction of the picture's width."),
            _fraction("y", 0.2, "Its upper edge as a fraction of the picture's height."),
            _fraction("width", 0.4, "Its width as a fraction of the picture's."),
            _fraction("height", 0.5, "Forehead to chin as a fraction of the picture's height."),
            reference_is,
            *near_place,
        ],
        WHOLE: near_place,
    }


def _choice(tooltip: str) -> io.Input:
    return io.Combo.Input("face", options=list(CHOICES), default=CHOICES[0], tooltip=tooltip)


def _landmark_network(tooltip: str) -> io.Input:
    return sockets.LandmarkNetwork.Input("landmark_network", optional=True, tooltip=tooltip)


def _refresh_every(tooltip: str) -> io.Input:
    return io.Int.Input("refresh_every", default=3, min=1, max=1000, tooltip=tooltip)


def _fraction(name: str, default: float, tooltip: str) -> io.Input:
    return io.Float.Input(
        name, default=default, min=0.0, max=1.0, step=0.01, round=False, tooltip=tooltip
    )


def _detecting(
    path: Path,
    face: str,
    min_score: float,
    refresh_every: int,
    fallback: str,
    landmark_network: LandmarkNetwork | None = None,
) -> FaceLocator:
    return FaceLocator(
        load_detector(path, min_score),
        every=refresh_every,
        choice=face,
        fallback=fallback,
        points=_point_finder(landmark_network),
        advice=NOT_DETECTED,
    )


def _at_landmarks(face_landmarks: dict, face: str, reference_is: str) -> FaceLocator:
    fixed = faces_in_landmarks(face_landmarks, face)
    return FaceLocator(fixed=fixed, fixed_in_reference=reference_is == FRAMED_ALIKE)


def _in_box(
    bounding_box: object, picture_width: int, picture_height: int, face: str, **others
) -> FaceLocator:
    if not (picture_width and picture_height):
        raise ValueError(
            "set 'picture_width' and 'picture_height' to the size in pixels of the picture that "
            f"'bounding_box' is of, got {picture_width} x {picture_height}"
        )
    return _near(faces_in_boxes(bounding_box, (picture_width, picture_height), face), **others)


def _in_fixed_box(x: float, y: float, width: float, height: float, **others) -> FaceLocator:
    if not (width > 0.0 and height > 0.0):
        raise ValueError(
            f"'width' and 'height' of the box must be above 0, got {width:g} and {height:g}"
        )
    if not (x < 1.0 and y < 1.0):
        raise ValueError(f"'x' and 'y' of the box must be below 1, got {x:g} and {y:g}")
    box = torch.tensor([[x, y, x + width, y + height]])
    return _near(Faces.from_boxes(box), **others)


def _near(
    place: Faces | Crowd | None = None,
    *,
    refresh_every: int,
    reference_is: str = CROPPED,
    landmark_network: LandmarkNetwork | None = None,
) -> FaceLocator:
    """Locate a face at a place, or near it if a landmark network finds its points there."""
    return FaceLocator(
        fixed=place,
        fixed_in_reference=reference_is == FRAMED_ALIKE,
        every=refresh_every,
        points=_point_finder(landmark_network),
        advice=NOT_AT_PLACE,
    )


_PLACES = {LANDMARKS: _at_landmarks, BOX: _in_box, FIXED: _in_fixed_box, WHOLE: _near}


def _point_finder(network: LandmarkNetwork | None) -> FivePoints | None:
    """Make a function that finds five points in a face's box, or None without a network."""
    if network is None:
        return None
    if network.points not in POINT_SETS:
        known = ", ".join(map(str, POINT_SETS))
        raise ValueError(
            f"'landmark_network' must find {known} points, of which it is known where eyes, nose "
            f"and mouth are; this one finds {network.points}"
        )
    return FivePoints(network)
