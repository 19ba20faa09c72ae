"""Normals: surfaces should be turned as in a normal map or in a photograph.

Light and texture change nothing of them, and of depth they know the small forms.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from ..embeddings import unit
from ..energy import networks_of
from ..pictures.references import Reference
from ..pictures.regions import only_region_moves
from ..pictures.smoothing import region_weights, weighted_mean

__all__ = ["Normals"]


class Normals:
    """``E = mean_w (1 - n(image) . n*)``, the cosine between normals, ``w`` the region.

    The network sees the whole image; the gradient reaches the region only. Unit: 1 - cosine, 0 for
    the same surfaces, 2 for opposite ones.

    Args:
        estimator: takes ``image [B, 3, H, W]`` RGB in [0, 1] to normals ``[B, 3, h, w]`` of any
            resolution and length: x to the right, y down, z away from the viewer. It may have
            ``networks``, as an energy has.
        target: the wanted normals ``[R, 3, h, w]``, R 1 or the batch size; maps of another shape
            are scaled to fill the image, what overhangs cut evenly.
        mask: how much of each place of the target counts, ``[R, 1, h, w]`` in [0, 1], or None.

    Raises:
        ValueError: a target has another shape.
    """

    describes_places = True  # what it asks for lies at places of the whole picture
    goal = 0.0  # of a picture that is all that it asks for

    def __init__(
        self,
        estimator: Callable[[Tensor], Tensor],
        target: Tensor,
        mask: Tensor | None = None,
    ):
        self.estimator = estimator
        self.reference = Reference(target, mask)

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return networks_of(self.estimator)

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        normals = self.estimator(only_region_moves(image, region))  # [B, 3, h, w]
        inside = F.interpolate(region_weights(region, image), size=normals.shape[-2:], mode="area")
        weights = self.reference.weights(normals, inside)
        found, wanted = (unit(x.movedim(1, -1)) for x in (normals, self.reference.at(normals)))
        return weighted_mean(1.0 - (found * wanted).sum(-1)[:, None], weights)
