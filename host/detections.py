"""Faces from the outputs of the host's own detection nodes: landmarks and boxes in pixels."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real

import numpy as np
import torch

from ..guidance.faces.crops import Faces
from ..guidance.faces.crowds import Crowd
from ..guidance.faces.detections import IN_THE_REGION, Detection, preferred
from ..guidance.faces.location import is_face
from ..guidance.faces.points import five_points
from ..guidance.wording import quoted

__all__ = ["boxes_in_pictures", "faces_in_boxes", "faces_in_landmarks"]

BOX_KEYS = ("x", "y", "width", "height")


def faces_in_landmarks(landmarks: Mapping, choice: str) -> Faces | Crowd:
    """The faces in a FACE_LANDMARKS of the host, one for each of its pictures, or all to choose of.

    Args:
        landmarks: ``frames``, for each picture a list of faces with ``landmarks_xy [P, 2]`` and
            ``bbox_xyxy [4]`` in pixels, and ``image_size``, the pictures' (height, width).
        choice: which of several faces is meant, one of guidance.faces.detections.CHOICES.

    Raises:
        ValueError: a picture has no face, or the points are in no known order or form none.
    """
    try:
        return _in_landmarks(landmarks, choice)
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(
            "'face_landmarks' must be what Detect Face Landmarks (MediaPipe) puts out, got "
            f"{quoted(landmarks)}"
        ) from error


def _in_landmarks(landmarks: Mapping, choice: str) -> Faces | Crowd:
    height, width = landmarks["image_size"]
    if not (height > 0 and width > 0):
        raise ValueError(f"'face_landmarks' is of a picture of {width} x {height} pixels")
    frame = torch.tensor((width, height), dtype=torch.float64)
    found = [
        [
            Detection(
                _tensor(face["bbox_xyxy"]) / frame.repeat(2),
                float(face.get("score", 1.0)),
                five_points(_tensor(face["landmarks_xy"])[None] / frame)[0],
            )
            for face in faces
        ]
        for faces in _filled(landmarks["frames"], "'face_landmarks' holds no face")
    ]

    def known(faces: Sequence[Detection]) -> Faces:
        points = torch.stack([each.points for each in faces])
        if not is_face(points, width / height):
            raise ValueError("'face_landmarks' holds points that form no face")
        return Faces.from_points(points, width / height)

    return _chosen(found, choice, width / height, known)


def faces_in_boxes(boxes: object, size: tuple[int, int], choice: str) -> Faces | Crowd:
    """The faces in a BOUNDING_BOX of the host, one for each of its pictures, or all to choose of.

    Args:
        boxes: a box ``{"x", "y", "width", "height"}`` in pixels, a list of them, or a list of such
            lists, one for each picture.
        size: the width and height in pixels of the picture that the boxes are of.
        choice: which of several boxes is meant, one of guidance.faces.detections.CHOICES.

    Raises:
        ValueError: the boxes have another form, a picture has none, or one lies outside.
    """
    found = _boxes_of_pictures(boxes, size, "bounding_box")

    def known(faces: Sequence[Detection]) -> Faces:
        return Faces.from_boxes(torch.stack([each.box for each in faces]))

    return _chosen(found, choice, size[0] / size[1], known)


def _chosen(
    found: Sequence[Sequence[Detection]],
    choice: str,
    aspect: float,
    known: Callable[[Sequence[Detection]], Faces],
) -> Faces | Crowd:
    """The face that is meant in each picture; all of them, where a region is to choose."""
    if choice == IN_THE_REGION:
        return Crowd([known(faces) for faces in found], aspect)
    return known([preferred(faces, choice, aspect) for faces in found])


def boxes_in_pictures(boxes: object, size: tuple[int, int], name: str) -> torch.Tensor:
    """All boxes in a BOUNDING_BOX of the host: ``[R, P, 4]`` in fractions of its pictures.

    Args:
        boxes, size: see ``faces_in_boxes``.
        name: the input that they are at.

    Raises:
        ValueError: see ``faces_in_boxes``; or there are not as many boxes in each picture.
    """
    found = [[each.box for each in one] for one in _boxes_of_pictures(boxes, size, name)]
    counts = {len(one) for one in found}
    if len(counts) > 1:
        raise ValueError(
            f"'{name}' must hold as many boxes for each picture, got "
            f"{', '.join(str(len(one)) for one in found)}"
        )
    return torch.stack([torch.stack(one) for one in found])


def _boxes_of_pictures(boxes: object, size: tuple[int, int], name: str) -> list[list[Detection]]:
    if isinstance(boxes, Mapping):
        boxes = [boxes]
    if isinstance(boxes, Sequence) and boxes and isinstance(boxes[0], Mapping):
        boxes = [boxes]
    if not isinstance(boxes, Sequence) or isinstance(boxes, str):
        raise ValueError(f"'{name}' must be boxes with {_KEYS}, got {type(boxes).__name__}")
    filled = _filled(boxes, f"'{name}' holds no box")
    return [[_detection(box, size, name) for box in found] for found in filled]


_KEYS = ", ".join(BOX_KEYS)


def _detection(box: object, size: tuple[int, int], name: str) -> Detection:
    if not isinstance(box, Mapping) or not all(isinstance(box.get(k), Real) for k in BOX_KEYS):
        raise ValueError(f"'{name}' must be boxes with {_KEYS}, got {quoted(box)}")
    x, y, wide, high = (float(box[key]) for key in BOX_KEYS)
    width, height = size
    if not (wide > 0.0 and high > 0.0 and -wide < x < width and -high < y < height):
        raise ValueError(
            f"'{name}' must lie in the picture of {width} x {height} pixels, "
            f"got x {x:g}, y {y:g}, width {wide:g}, height {high:g}"
        )
    edges = torch.tensor((x, y, x + wide, y + high), dtype=torch.float64)
    return Detection(edges / edges.new_tensor((width, height) * 2), float(box.get("score", 1.0)))


def _filled(frames: Sequence[Sequence], nothing: str) -> Sequence[Sequence]:
    """The same, if each picture has something."""
    if not isinstance(frames, Sequence) or not len(frames):
        raise ValueError(nothing)
    for index, found in enumerate(frames):
        if not isinstance(found, Sequence) or isinstance(found, str):
            raise ValueError(f"{nothing} in picture {index + 1} of {len(frames)}")
        if not len(found):
            raise ValueError(f"{nothing} in picture {index + 1} of {len(frames)}")
    return frames


def _tensor(values) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values, dtype=np.float64))
