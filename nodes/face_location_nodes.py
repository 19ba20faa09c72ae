"""Where the face is: by a detector that follows the run, or at a fixed place."""

from collections.abc import Callable

import torch
from comfy_api.latest import io

from ..guidance.faces.crops import Faces
from ..guidance.faces.detections import CHOICES
from ..guidance.faces.location import FALLBACKS, FaceLocator
from ..guidance.faces.networks import LandmarkRegressor
from ..guidance.faces.points import POINT_SETS, FivePoints
from ..host.detections import faces_in_boxes, faces_in_landmarks
from ..host.face_detectors import detector_choices, find_detector, load_detector
from ..host.face_packs import first_choice
from ..host.model_files import usable_name
from ..host.networks import stamp_of
from .sockets import FaceLocation, LandmarkNetwork
from .titles import title

__all__ = ["METHODS", "NODES"]

CATEGORY = "Z-Magic/models"

METHODS = ("detector", "face landmarks", "bounding box", "fixed box", "whole picture")

# What a reference shows, for the methods that are told a place of the picture.
CROPPED, FRAMED_ALIKE = "cropped to the face", "framed like the picture"

FaceLandmarks = io.Custom("FACE_LANDMARKS")  # of the host's MediaPipe node


class ZMagicLocateFace(io.ComfyNode):
    """Where the face is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        detectors = detector_choices()

        def fraction(name: str, default: float, tooltip: str) -> io.Input:
            return io.Float.Input(
                name,
                default=default,
                min=0.0,
                max=1.0,
                step=0.01,
                round=False,
                advanced=True,
                tooltip=f"For method fixed box: {tooltip}",
            )

        def pixels(name: str, side: str) -> io.Input:
            return io.Int.Input(
                name,
                default=0,
                min=0,
                max=1 << 16,
                advanced=True,
                tooltip=(
                    f"For method bounding box: {side} in pixels of the picture that the box is "
                    "of, such as Get Image Size gives it. It may have another size than the one "
                    "to be made."
                ),
            )

        return io.Schema(
            node_id="ZMagicLocateFace",
            display_name="Locate Face",
            category=CATEGORY,
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
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=METHODS[0],
                    tooltip=(
                        "detector: the face is looked for, in the reference and again and again "
                        "in the picture. face landmarks, bounding box, fixed box: it is kept at "
                        "one place of the picture. whole picture: its centre square, or the "
                        "region's, is taken for an aligned face. Except with a detector, "
                        "'reference_is' says where the face is in the reference."
                    ),
                ),
                io.Combo.Input(
                    "detector",
                    options=detectors,
                    default=first_choice(detectors),
                    tooltip=(
                        "For method detector: a pack of insightface (for non-commercial research "
                        "only) or a file, UltraFace's too (MIT licence)."
                    ),
                ),
                io.Combo.Input(
                    "face",
                    options=list(CHOICES),
                    default=CHOICES[0],
                    tooltip=(
                        "Which of several faces. With a region at the energy, of those whose "
                        "centre lies in the region."
                    ),
                ),
                LandmarkNetwork.Input(
                    "landmark_network",
                    optional=True,
                    tooltip=(
                        "Finds eyes, nose and mouth in the box of a detector that finds none, "
                        "such as UltraFace; for bounding box, fixed box and whole picture near "
                        "that place, again and again. Not connected: they are taken to be where "
                        "they are in an average face."
                    ),
                ),
                FaceLandmarks.Input(
                    "face_landmarks",
                    optional=True,
                    tooltip=(
                        "For method face landmarks: from Detect Face Landmarks (MediaPipe), of a "
                        "picture whose composition the new one keeps, such as the first pass."
                    ),
                ),
                io.BoundingBox.Input(
                    "bounding_box",
                    optional=True,
                    force_input=True,
                    tooltip=(
                        "For method bounding box: the face's box in pixels, from any node of "
                        "ComfyUI that makes boxes. picture_width and picture_height have to be "
                        "set."
                    ),
                ),
                fraction("x", 0.3, "its left edge as a fraction of the picture's width."),
                fraction("y", 0.2, "its upper edge as a fraction of the picture's height."),
                fraction("width", 0.4, "its width as a fraction of the picture's."),
                fraction("height", 0.5, "forehead to chin as a fraction of the picture's height."),
                pixels("picture_width", "width"),
                pixels("picture_height", "height"),
                io.Float.Input(
                    "min_score",
                    default=0.6,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    round=False,
                    advanced=True,
                    tooltip=(
                        "For method detector: how certain it has to be. Less finds the face in an "
                        "earlier, more blurred picture, and sooner something that is none. 0.5 to "
                        "0.8 is good."
                    ),
                ),
                io.Int.Input(
                    "refresh_every",
                    default=3,
                    min=1,
                    max=1000,
                    advanced=True,
                    tooltip=(
                        "For method detector and for a landmark network: look again after this "
                        "many steps. 1 follows every move; a picture without a face yet is looked "
                        "at in every step."
                    ),
                ),
                io.Combo.Input(
                    "fallback",
                    options=list(FALLBACKS),
                    default=FALLBACKS[0],
                    advanced=True,
                    tooltip=(
                        "For method detector: where a face is assumed until the first one is "
                        "found. reference: where it is in the reference. centre: in the centre of "
                        "the region, of the picture without one."
                    ),
                ),
                io.Combo.Input(
                    "reference_is",
                    options=[CROPPED, FRAMED_ALIKE],
                    default=CROPPED,
                    optional=True,  # graphs from before it was there lack it
                    advanced=True,
                    tooltip=(
                        "For the methods without a detector. cropped to the face: the centre "
                        "square of the reference is taken for an aligned face. framed like the "
                        "picture: its face is at the place that is given for the picture."
                    ),
                ),
            ],
            outputs=[
                FaceLocation.Output(
                    display_name="face_location",
                    tooltip="Connect to face_location of Face Identity and Landmark Energy.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, detector: str = "") -> bool | str:
        """A detector that is not there is reported when the node runs, with where to get it."""
        return usable_name(detector, "detector")

    @classmethod
    def fingerprint_inputs(cls, method: str = "", detector: str = "", **others) -> tuple:
        """Changes when the detector's file does."""
        if method != "detector":
            return ()
        return stamp_of(lambda: find_detector(detector, ""), detector)

    @classmethod
    def execute(
        cls,
        method: str,
        detector: str,
        face: str,
        x: float,
        y: float,
        width: float,
        height: float,
        picture_width: int,
        picture_height: int,
        min_score: float,
        refresh_every: int,
        fallback: str,
        landmark_network: LandmarkRegressor | None = None,
        face_landmarks: dict | None = None,
        bounding_box: object = None,
        reference_is: str = CROPPED,
    ) -> io.NodeOutput:
        owner = title(cls)
        points = None
        if method != "face landmarks":  # whose points are known
            points = _prefixed(owner, _point_finder, landmark_network)
        if method == "detector":
            path = find_detector(detector, owner)
            detect = _prefixed(owner, load_detector, path, min_score)
            locator = FaceLocator(
                detect,
                every=refresh_every,
                choice=face,
                fallback=fallback,
                points=points,
            )
            return io.NodeOutput(locator)
        if method == "face landmarks":
            _require(face_landmarks, owner, method, "face_landmarks")
            fixed = _prefixed(owner, faces_in_landmarks, face_landmarks, face)
        elif method == "bounding box":
            _require(bounding_box, owner, method, "bounding_box")
            _require(picture_width and picture_height, owner, method, *_PICTURE_SIZE)
            size = (picture_width, picture_height)
            fixed = _prefixed(owner, faces_in_boxes, bounding_box, size, face)
        elif method == "fixed box":
            fixed = _prefixed(owner, _fixed, x, y, width, height)
        else:
            fixed = None
        locator = FaceLocator(
            fixed=fixed,
            fixed_in_reference=reference_is == FRAMED_ALIKE,
            every=refresh_every,
            points=points,
        )
        return io.NodeOutput(locator)


_PICTURE_SIZE = ("picture_width", "picture_height")


def _require(value: object, owner: str, method: str, *names: str) -> None:
    """Raise ValueError unless the inputs that a method needs are there."""
    if value is None or value == 0:
        needed = "' and '".join(names)
        raise ValueError(
            f"{owner}: method '{method}' needs '{needed}', got nothing there: connect or set it, "
            "or choose another method"
        )


def _prefixed(owner: str, function: Callable, *arguments):
    """``function(*arguments)``; its ValueErrors begin with the node's title."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from error


def _point_finder(network: LandmarkRegressor | None) -> FivePoints | None:
    """What finds five points in a face's box."""
    if network is None:
        return None
    if network.points not in POINT_SETS:
        known = ", ".join(map(str, POINT_SETS))
        raise ValueError(
            f"'landmark_network' must find {known} points, of which it is known where eyes, nose "
            f"and mouth are; this one finds {network.points}"
        )
    return FivePoints(network)


def _fixed(x: float, y: float, width: float, height: float) -> Faces:
    if not (width > 0.0 and height > 0.0):
        raise ValueError(
            f"'width' and 'height' of the box must be above 0, got {width:g} and {height:g}"
        )
    if not (x < 1.0 and y < 1.0):
        raise ValueError(f"'x' and 'y' of the box must be below 1, got {x:g} and {y:g}")
    return Faces.from_boxes(torch.tensor([[x, y, x + width, y + height]]))


NODES = [ZMagicLocateFace]
