"""Several faces at known places of a picture, of which the region of a condition chooses one."""

from collections.abc import Sequence

from torch import Tensor

from .crops import Faces
from .detections import IN_THE_REGION, Detection, is_in, preferred

__all__ = ["Crowd"]


class Crowd:
    """All faces of each of R pictures; constants.

    Args:
        pictures: the faces of each picture, one or more.
        aspect: the pictures' width divided by their height.

    Raises:
        ValueError: a picture has no face.
    """

    def __init__(self, pictures: Sequence[Faces], aspect: float):
        if not all(len(faces) for faces in pictures):
            raise ValueError("each picture of a crowd needs a face")
        self.pictures = tuple(pictures)
        self.aspect = aspect

    def __len__(self) -> int:
        return len(self.pictures)

    def chosen(self, number: int, mask: Tensor | None) -> Faces | None:
        """The face of a picture that lies most in ``mask [H, W]``, None where none is in it.

        Without a mask it is the largest.
        """
        faces = self.pictures[number]
        found = [Detection(box) for box in faces.boxes]
        best = preferred(found, IN_THE_REGION, self.aspect, mask)
        if mask is not None and not is_in(best.box, mask, IN_THE_REGION):
            return None
        return faces[next(i for i, each in enumerate(found) if each is best)]
