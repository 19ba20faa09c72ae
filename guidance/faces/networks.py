"""The two kinds of face networks: embeddings of aligned crops, and points in the face's box.

Both take the network as a plain callable, so that they work on any module.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..pictures.preprocessing import Preprocessing
from ..transfers import made_at
from .crops import Faces, box_crops

__all__ = ["FaceRecognizer", "LandmarkNetwork"]

# A prepared batch to the network's output, or to a tuple of which the first one counts.
NetworkFunction = Callable[[Tensor], Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True, eq=False)
class FaceRecognizer:
    """Embeds aligned face crops (ArcFace, Deng et al., CVPR 2019, and its relatives).

    Args:
        network: takes the normalized crops ``[B, 3, size, size]`` to embeddings ``[B, D, ...]``.
        preprocessing: the way from a crop in [0, 1] to the network's input, which is square.
    """

    network: NetworkFunction
    preprocessing: Preprocessing

    @property
    def networks(self) -> tuple[NetworkFunction, ...]:
        """The network it runs on; see the Energy protocol."""
        return (self.network,)

    @property
    def size(self) -> int:
        """The side of the crops in pixels."""
        return self.preprocessing.input_size[0]

    def __call__(self, crops: Tensor) -> Tensor:
        """Embeddings ``[B, D]``, not of unit length, of ``crops [B, 3, size, size]`` RGB."""
        return _first(self.network(self.preprocessing(crops))).flatten(1)


@dataclass(frozen=True, eq=False)
class LandmarkNetwork:
    """Finds the points of a face inside its box by direct regression of their coordinates.

    Args:
        network: takes the normalized crops ``[B, C, size, size]`` to ``[B, 2 * points]``, x before
            y.
        preprocessing: the way from a crop in [0, 1] to the network's input, which is square.
        points: how many points the network finds.
        margin: the side of the crop in sides of the face's box.
        square: the crop is a square around the box; otherwise the box is stretched to one.
        signed: the network's coordinates run from -1 to 1 across the crop, otherwise from 0 to 1.
    """

    network: NetworkFunction
    preprocessing: Preprocessing
    points: int
    margin: float = 1.5
    square: bool = True
    signed: bool = True

    @property
    def networks(self) -> tuple[NetworkFunction, ...]:
        """The network it runs on; see the Energy protocol."""
        return (self.network,)

    def in_crop(self, image: Tensor, faces: Faces, cut: Faces | None = None) -> Tensor:
        """The points in fractions of the crop, ``[B, P, 2]``; differentiable in the image.

        Args:
            image: ``[B, 3, H, W]`` RGB in [0, 1].
            faces: one face in each picture, or one for all; its box counts.
            cut: faces whose boxes have the same sides: the network sees the crops of these.
                None: of the same.
        """
        if cut is None or cut is faces:
            return self._located(image, faces)[0]
        points, back = self._located(image, cut)
        apart = cut.boxes[:, :2] - faces.boxes[:, :2]  # [1 or B, 2], fractions of the picture
        sides = back[:, :, :2].diagonal(dim1=1, dim2=2)  # of the crop
        return points + made_at(apart, image)[:, None] / sides[:, None]

    def landmarks(self, image: Tensor, faces: Faces) -> Tensor:
        """The points in fractions of the picture, ``[B, P, 2]``; see ``in_crop``."""
        points, back = self._located(image, faces)
        return points @ back[:, :, :2].transpose(1, 2) + back[:, None, :, 2]

    def _located(self, image: Tensor, faces: Faces) -> tuple[Tensor, Tensor]:
        """The points in the crop, and the map ``[B, 2, 3]`` from it to the picture."""
        size = self.preprocessing.input_size[0]
        crops, back = box_crops(image, faces, size, self.margin, self.square)
        points = _first(self.network(self.preprocessing(crops))).flatten(1)
        points = points.unflatten(1, (self.points, 2))  # [B, P, 2]
        return ((points + 1.0) / 2.0 if self.signed else points), back


def _first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]
