"""Face identity: the face in the picture should be recognized as the one in the reference.

The energy of face guidance in FreeDoM (Yu et al., "FreeDoM: Training-Free Energy-Guided Conditional
Diffusion Model", ICCV 2023) with the cosine that recognizers of the ArcFace family (Deng et al.,
CVPR 2019) are trained on, and with the alignment that they expect.
"""

from torch import Tensor
from torch.nn import functional as F

from ..energy import networks_of
from ..faces.crops import Faces, aligned_crops
from ..faces.face_energy import FaceEnergy
from ..faces.location import FaceLocator
from ..faces.networks import FaceRecognizer
from ..pictures.regions import only_region_moves
from ..transfers import Constant

__all__ = ["FaceIdentity", "mean_embedding"]


def mean_embedding(recognizer: FaceRecognizer, pictures: Tensor, faces: Faces) -> Tensor:
    """One person's embedding from several photographs: unit vectors averaged, unit length again.

    Args:
        pictures: ``[R, 3, h, w]`` RGB in [0, 1], all of the same person.
        faces: one face in each photograph.

    Returns:
        the embedding ``[D]``, of unit length.
    """
    embeddings = recognizer(aligned_crops(pictures, faces, recognizer.size))  # [R, D]
    return F.normalize(F.normalize(embeddings).mean(0), dim=0)


class FaceIdentity(FaceEnergy):
    """``E = 1 - cos(f(crop(image)), r)``, ``f`` the recognizer and ``r`` the reference.

    The energy is 0 for the reference itself, about 1 between strangers, at most 2. The recognizer
    sees the aligned crop of the face, background included; the gradient reaches the region only.

    Args:
        recognizer: the attribute network that embeds aligned crops.
        reference: the embedding ``[D]`` of ``mean_embedding``, or ``[B, D]``: for each picture its
            own.
        locator, layout: where the face is, see FaceEnergy.

    Raises:
        ValueError: ``reference`` has another shape.
    """

    goal = 0.0  # of a picture that is all that it asks for

    def __init__(
        self,
        recognizer: FaceRecognizer,
        reference: Tensor,
        locator: FaceLocator,
        layout: Faces | None = None,
    ):
        if reference.ndim not in (1, 2):
            raise ValueError(
                "reference must be one embedding [D] or one for each picture "
                f"[B, D], got {list(reference.shape)}"
            )
        super().__init__(locator, layout)
        self.recognizer = recognizer
        self._reference = Constant(F.normalize(reference, dim=-1))

    @property
    def reference(self) -> Tensor:
        """The embedding of the reference, ``[D]`` or ``[B, D]``, of unit length."""
        return self._reference.tensor

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return networks_of(self.recognizer, self.locator)

    def of_faces(self, image: Tensor, region: Tensor | None, faces: Faces, cut: Faces) -> Tensor:
        """The energy ``[B]`` of faces that are known; see FaceEnergy.

        Raises:
            ValueError: there are several references, but not one for each picture.
        """
        if self.reference.ndim == 2 and len(self.reference) not in (1, len(image)):
            raise ValueError(
                f"{len(self.reference)} embeddings as reference, expected 1 "
                f"or the batch size {len(image)}"
            )
        crops = aligned_crops(only_region_moves(image, region), cut, self.recognizer.size)
        embeddings = self.recognizer(crops)  # [B, D]
        return 1.0 - (F.normalize(embeddings) * self._reference.like(embeddings)).sum(1)
