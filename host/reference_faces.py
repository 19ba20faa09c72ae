"""The faces in reference pictures, and whether they are where they are taken to be."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..guidance.faces.crops import Faces
from ..guidance.faces.location import FaceLocator, is_near
from .networks import load_networks

__all__ = ["ReferenceFaces", "reference_faces"]

# The cascade that scikit-image brings finds faces of 1/6 of the shorter side and more in pictures
# of this size, in a tenth of a second.
CASCADE = "lbpcascade_frontalface_opencv.xml"
CASCADE_SIDE, CASCADE_LEAST = 256, 40
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, eq=False)
class ReferenceFaces:
    """The faces in reference pictures.

    Attributes:
        faces: one face for each picture that is kept; None if none is.
        kept: the numbers of the pictures in which a face was found, counted from 0.
        astray: the numbers of those whose face seems to be at another place, or of another size,
            than it is taken for.
    """

    faces: Faces | None
    kept: tuple[int, ...]
    astray: tuple[int, ...] = ()


def reference_faces(locator: FaceLocator, pictures: Tensor) -> ReferenceFaces:
    """Find the face in each of ``pictures [R, 3, h, w]`` RGB in [0, 1]."""
    if locator.networks:
        load_networks(locator.networks)
    found = locator.in_picture(pictures)
    kept = tuple(r for r, face in enumerate(found) if face is not None)
    if not kept:
        return ReferenceFaces(None, ())
    faces = Faces.stacked([found[r] for r in kept])
    astray = _astray(pictures, faces) if locator.detect is None else ()
    return ReferenceFaces(faces, kept, astray)


def _astray(pictures: Tensor, faces: Faces) -> tuple[int, ...]:
    """The numbers of pictures in which scikit-image finds faces, but none where it is taken to be.

    Empty where scikit-image is not installed.
    """
    cascade = _cascade()
    if cascade is None:
        return ()
    return tuple(
        r
        for r, picture in enumerate(pictures)
        if (boxes := _found_by(cascade, picture))
        and not any(is_near(box, faces.boxes[r].to(box)) for box in boxes)
    )


@lru_cache(1)
def _cascade():
    """scikit-image's detector of frontal faces, None where it is not installed."""
    if find_spec("skimage") is None:
        return None
    try:
        import skimage
        from skimage.feature import Cascade

        file = Path(skimage.__file__).parent / "data" / CASCADE
        return Cascade(str(file)) if file.is_file() else None
    except Exception:  # of another version, or built for another one of its own needs
        return None


def _found_by(cascade, picture: Tensor) -> list[Tensor]:
    """Boxes ``[4]`` in fractions of faces in ``picture [3, h, w]``."""
    height, width = picture.shape[-2:]
    scale = CASCADE_SIDE / min(height, width)
    size = [max(1, round(side * scale)) for side in (height, width)]
    gray = torch.einsum("chw,c->hw", picture, picture.new_tensor(LUMA))[None, None]
    gray = F.interpolate(gray, size=size, mode="bilinear", antialias=True)[0, 0]
    pixels = (gray.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu().numpy()
    found = cascade.detect_multi_scale(
        img=np.repeat(pixels[..., None], 3, axis=2),
        scale_factor=1.1,
        step_ratio=1,
        min_size=(CASCADE_LEAST, CASCADE_LEAST),
        max_size=(CASCADE_SIDE, CASCADE_SIDE),
    )
    frame = torch.tensor((size[1], size[0]) * 2, dtype=torch.float64)
    return [
        torch.tensor((b["c"], b["r"], b["c"] + b["width"], b["r"] + b["height"])) / frame
        for b in found
    ]
