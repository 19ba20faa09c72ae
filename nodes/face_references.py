"""The faces in the pictures at an input of a node, and what to say where there is none."""

from torch import Tensor

from ..guidance.faces.crops import Faces
from ..guidance.faces.location import FaceLocator
from ..host.reference_faces import reference_faces

__all__ = ["faces_at"]

ADVICE = "Use one in which the face is larger and seen from the front"


def faces_at(
    name: str, pictures: Tensor, locator: FaceLocator
) -> tuple[Faces, list[int], list[str]]:
    """The face in each of the pictures ``[R, 3, h, w]`` at the input ``name``.

    Returns:
        the faces of the pictures that have one; the numbers of those pictures, counted from 0;
        and sentences about the others, and about faces that may be somewhere else.

    Raises:
        ValueError: there is a face in none of them.
    """
    found = reference_faces(locator, pictures)
    count, kept = len(pictures), list(found.kept)
    if found.faces is None:
        which = "the picture" if count == 1 else f"any of the {count} pictures"
        raise ValueError(
            f"no face was found in {which} at '{name}'.\n{ADVICE}, or lower 'min_score' at Locate "
            "Face"
        )
    warnings = [
        f"no face was found in picture {r + 1} of {count} at '{name}', which is left out.\n{ADVICE}"
        for r in range(count)
        if r not in kept
    ]
    if found.astray:
        numbers = ", ".join(str(r + 1) for r in found.astray)
        which = f"picture {numbers} of {count}" if count > 1 else "the picture"
        warnings.append(
            f"the face in {which} at '{name}' seems to be at another place, or of another size, "
            "than it is taken for.\nConnect Locate Face with a detector, or crop the picture to "
            "the face"
        )
    return found.faces, kept, warnings
