"""Image similarity: the picture should show what the reference pictures show.

Distances are those of CLIP's image embeddings (Radford et al., "Learning Transferable Visual
Models From Natural Language Supervision", ICML 2021), which tell what is shown and how, not where.
"""

from collections.abc import Callable

from torch import Tensor

from ..embeddings import Targets
from ..pictures.preprocessing import Preprocessing
from ..pictures.regions import seen

__all__ = ["ImageSimilarity"]


class ImageSimilarity:
    """``E = sum_r w_r (1 - cos(f(image), f(reference_r))) / sum_r w_r``, ``f`` the image tower.

    All references count for every image of a batch. Unit: 1 - cosine, between 0 and 2.

    Args:
        network: the image tower, ``[B, 3, h, w] -> [B, D]``.
        preprocessing: the way from a picture to the tower's input.
        references: the embeddings ``f(reference_r)``, ``[R, D]``.
        weights: one weight for each, ``[R]``, relative to each other; negative pushes away.

    Raises:
        ValueError: the weights do not fit the references.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        preprocessing: Preprocessing,
        references: Tensor,
        weights: Tensor,
    ):
        self.network = network
        self.preprocessing = preprocessing
        self.targets = Targets(references, weights)
        self._only_one = len(weights) == 1 and bool((weights > 0.0).all())

    @property
    def goal(self) -> float | None:
        """0, the energy of the reference; None of several, or of one to keep away from."""
        return 0.0 if self._only_one else None

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return (self.network,)

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        return self.targets.distance(self.network(seen(image, region, self.preprocessing)))
