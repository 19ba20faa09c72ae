"""A face recognizer that never guides: dlib's, of another architecture and training set.

dlib's ResNet (King, "High Quality Face Recognition with Deep Metric Learning", 2017) embeds a face
in 128 numbers; two pictures whose embeddings are closer than 0.6 are the same person to it. Network
and face detector come with the Python packages dlib-bin and face_recognition_models.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import dlib
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["DlibFaces", "DlibLandmarks", "shows_face"]

# The detector looks for faces of 80 pixels and more: small pictures are enlarged.
DETECTION_SIDE = 320


class DlibFaces:
    """Finds the face in a picture and embeds it."""

    def __init__(self):
        folder = _folder()
        self.detector = _detector()
        self.points = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))
        self.network = dlib.face_recognition_model_v1(
            str(folder / "dlib_face_recognition_resnet_model_v1.dat")
        )

    def embedding(self, picture: Tensor) -> Tensor | None:
        """``[128]`` of the largest face in ``picture [3, H, W]`` in [0, 1]; None without one."""
        pixels = _pixels(picture)
        face = _largest(self.detector, pixels)
        if face is None:
            return None
        return torch.tensor(
            np.array(self.network.compute_face_descriptor(pixels, self.points(pixels, face)))
        )

    def distances(self, pictures: Tensor, reference: Tensor) -> list[float | None]:
        """Return how far the person in each picture is from the one in the reference.

        The pictures are ``[B, 3, H, W]``, the reference is ``[3, h, w]``. A distance is None
        where no face is found.

        Raises:
            ValueError: the reference shows no face.
        """
        wanted = self.embedding(reference)
        if wanted is None:
            raise ValueError("dlib finds no face in the reference")
        found = [self.embedding(picture) for picture in pictures]
        return [None if e is None else float((e - wanted).norm()) for e in found]


class DlibLandmarks:
    """Finds 68 points of the face in a picture.

    Kazemi and Sullivan, "One Millisecond Face Alignment with an Ensemble of Regression Trees", CVPR
    2014: no neural network, nothing in common with a regressor that guides.
    """

    def __init__(self):
        self.detector = _detector()
        self.predictor = dlib.shape_predictor(
            str(_folder() / "shape_predictor_68_face_landmarks.dat")
        )

    def __call__(self, picture: Tensor) -> Tensor | None:
        """``[68, 2]`` in fractions of ``picture [3, H, W]`` in [0, 1]; None without a face."""
        pixels = _pixels(picture)
        face = _largest(self.detector, pixels)
        if face is None:
            return None
        height, width = pixels.shape[:2]
        points = [(point.x, point.y) for point in self.predictor(pixels, face).parts()]
        return (torch.tensor(points) + 0.5) / torch.tensor([width, height])


def shows_face(picture: Tensor) -> bool:
    """Return whether dlib's detector finds a face in ``picture [3, H, W]`` in [0, 1]."""
    return bool(_detector()(_pixels(picture), 0))


@cache
def _detector():
    return dlib.get_frontal_face_detector()


def _folder() -> Path:
    return Path(find_spec("face_recognition_models").submodule_search_locations[0]) / "models"


def _largest(detector, pixels: np.ndarray):
    """The box of the largest face, or None."""
    return max(detector(pixels, 1), key=lambda box: box.area(), default=None)


def _pixels(picture: Tensor) -> np.ndarray:
    scale = max(1.0, DETECTION_SIDE / min(picture.shape[-2:]))
    size = [round(side * scale) for side in picture.shape[-2:]]
    picture = F.interpolate(picture[None].float(), size=size, mode="bicubic", antialias=True)[0]
    array = (picture.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).movedim(0, -1)
    return np.ascontiguousarray(array.cpu().numpy())
