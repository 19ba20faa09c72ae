"""Network output: an output of any network for the picture should be a target.

The target is a value (an age), a class (an expression), or the output for another picture (an
embedding, features): the energy of "universal guidance" (Bansal et al., "Universal Guidance for
Diffusion Models", CVPR Workshops 2023) for any differentiable network.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from ..energy import networks_of
from ..faces.crops import Faces, box_crops
from ..faces.face_energy import FaceEnergy
from ..faces.location import FaceLocator
from ..pictures.class_scores import ClassScores
from ..pictures.preprocessing import Preprocessing
from ..pictures.regions import only_region_moves, seen
from ..transfers import Constant

__all__ = [
    "DISTANCES",
    "FaceOutput",
    "NetworkOutput",
    "class_target",
    "face_view",
    "features_first",
    "value_target",
]

DISTANCES = ("squared error", "cosine", "cross entropy")


class NetworkOutput:
    """``E = distance(f(view of the image), target)``, averaged over places of a map.

    - "squared error": mean of ``(f - t)^2`` over all numbers.
    - "cosine": ``1 - cos(f, t)`` of the features.
    - "cross entropy": ``sum_k t_k (log t_k - log p_k)``, t probabilities of classes; of a single
      class it is ``-log p``.

    Features or classes are axis 1 of outputs ``[B, D]`` and ``[B, D, h, w]``, and the last one of
    ``[B, N, D]``. The network sees the region's bounding box, or the image; the gradient reaches
    the region only.

    Args:
        network: takes views ``[B, C, h, w]`` to an output, or a tuple of which the first counts.
        preprocessing: the way from a picture to a view; it has a size.
        target: the wanted output ``[1 or B, D, ...]`` as ``features_first`` gives it, or broadcast
            to it.
        distance: one of DISTANCES.
        scores: how to read classes, for cross entropy.

    Raises:
        ValueError: the distance is unknown, or cross entropy lacks ``scores``.
    """

    goal = 0.0  # of a picture that is all that it asks for

    def __init__(
        self,
        network: Callable[[Tensor], Tensor | tuple[Tensor, ...]],
        preprocessing: Preprocessing,
        target: Tensor,
        distance: str = "squared error",
        scores: ClassScores | None = None,
    ):
        if distance not in DISTANCES:
            raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, got {distance}")
        if distance == "cross entropy" and scores is None:
            raise ValueError("cross entropy needs class scores")
        self.network = network
        self.preprocessing = preprocessing
        self._target = Constant(target)
        self.distance = distance
        self.scores = scores

    @property
    def target(self) -> Tensor:
        """What the network should put out, features first."""
        return self._target.tensor

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return (self.network,)

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol.

        Raises:
            ValueError: the number of targets is neither 1 nor the batch size.
        """
        return self.of_views(seen(image, region, self.preprocessing))

    @property
    def describes_places(self) -> bool:
        """Whether the network answers with maps, or tokens; see the Energy protocol."""
        return any(side > 1 for side in self.target.shape[2:])

    def of_views(self, views: Tensor) -> Tensor:
        """The energy ``[B]`` of prepared views ``[B, C, h, w]``."""
        if len(self.target) not in (1, len(views)):
            raise ValueError(
                f"the target holds {len(self.target)} pictures, "
                f"expected 1 or the batch size {len(views)}"
            )
        result = self.network(views)
        output = features_first(result if isinstance(result, Tensor) else result[0])
        return self._distance(output, self._target.like(output)).flatten(1).mean(1)

    def _distance(self, output: Tensor, target: Tensor) -> Tensor:
        if self.distance == "cosine":
            return 1.0 - F.cosine_similarity(output, target.expand_as(output), dim=1)[:, None]
        if self.distance == "cross entropy" and self.scores is not None:
            return self.scores.divergence(target, output)
        return (output - target).square()


class FaceOutput(FaceEnergy):
    """The energy of a network's output for the face, wherever it is in the picture.

    Args:
        energy: the energy of views of the face.
        locator, layout: where the face is, see FaceEnergy.
        margin: the side of the face's square crop in longer sides of its box, > 0.
    """

    goal = 0.0  # of a picture that is all that it asks for

    def __init__(
        self,
        energy: NetworkOutput,
        locator: FaceLocator,
        layout: Faces | None = None,
        margin: float = 1.0,
    ):
        super().__init__(locator, layout)
        self.energy = energy
        self.margin = margin

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return networks_of(self.energy, self.locator)

    @property
    def unfit_views(self) -> tuple[str, ...]:
        """None, unless it asks for something at places of the face; see the Energy protocol."""
        return ("shift", "flip") if self.energy.describes_places else ()

    def of_faces(self, image: Tensor, region: Tensor | None, faces: Faces, cut: Faces) -> Tensor:
        """The energy ``[B]`` of faces that are known; see FaceEnergy."""
        moving = only_region_moves(image, region)
        preprocessing = self.energy.preprocessing
        return self.energy.of_views(face_view(moving, cut, preprocessing, self.margin))


def face_view(image: Tensor, faces: Faces, preprocessing: Preprocessing, margin: float) -> Tensor:
    """A network's input for the faces of ``image [B, 3, H, W]``; see FaceOutput."""
    crops, _ = box_crops(image, faces, max(preprocessing.input_size), margin)
    return preprocessing(crops)


def features_first(output: Tensor) -> Tensor:
    """``[B]``, ``[B, D]``, ``[B, N, D]`` or ``[B, D, h, w]`` with features along axis 1."""
    if output.ndim == 1:
        return output[:, None]
    return output.movedim(-1, 1) if output.ndim == 3 else output


def value_target(numbers: Tensor, output: Tensor) -> Tensor:
    """Make a target ``[1, D, 1, ...]`` of numbers, one for all features or one for each.

    Args:
        numbers: the values that the output should have, ``[1]`` or ``[D]``.
        output: an example of the output, ``[B, D, ...]``, features first.

    Raises:
        ValueError: there is another number of them.
    """
    features = output.shape[1]
    if len(numbers) not in (1, features):
        raise ValueError(
            f"expected {f'1 or {features} numbers' if features > 1 else '1 number'} for an output "
            f"of {features}, got {len(numbers)}"
        )
    return numbers.view(1, -1, *[1] * (output.ndim - 2))


def class_target(number: int, classes: int, output: Tensor) -> Tensor:
    """Make a target ``[1, classes, 1, ...]``: all probability on one class.

    Raises:
        ValueError: there is no such class.
    """
    if not 0 <= number < classes:
        raise ValueError(f"expected a class 0 to {classes - 1} for this output, got {number}")
    target = output.new_zeros(1, classes, *[1] * (output.ndim - 2))
    target[:, number] = 1.0
    return target
