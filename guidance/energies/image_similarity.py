"""Image similarity: the picture should show what the reference pictures show.

As a whole: distances between image embeddings, of CLIP (Radford et al., "Learning Transferable
Visual Models From Natural Language Supervision", ICML 2021), DINOv2 (Oquab et al., "DINOv2:
Learning Robust Visual Features without Supervision", TMLR 2024) and others, which tell what is
shown and how, not where. Patch by patch: every part of a reference should be found somewhere.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..embeddings import Targets, unit
from ..pictures.patches import as_tokens, patch_shares, patch_weights
from ..pictures.preprocessing import Preprocessing
from ..pictures.regions import reference_view, seen
from ..transfers import Constant

__all__ = ["ImageSimilarity", "PatchSimilarity", "Patches", "reference_patches"]

# Below this part of the most that a patch has of the region, it is not of the region.
INSIDE = 0.5

# The directions of patches that count, ``[M, C]``, and their shares of the whole, ``[M]``.
Patches = tuple[Tensor, Tensor]


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


class PatchSimilarity:
    """``E = sum_m s_m (1 - max_n cos(f_n(image), g_m))``: every patch m finds its best match n.

    Where a patch of a reference is found in the picture does not matter, and the picture may show
    more than the references. All of them count for every image of a batch. With a region matches
    are looked for in it alone. Unit: 1 - cosine, between 0 and 2.

    Args:
        network: ``[B, 3, h, w]`` to features of patches, tokens ``[B, N, C]`` or a map
            ``[B, C, h, w]``.
        preprocessing: the way from a picture to the network's input.
        patches: directions ``g [M, C]`` of the references' patches and their shares ``s [M]``,
            which ``reference_patches`` makes.
    """

    goal = 0.0  # of a picture that is all that it asks for

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        preprocessing: Preprocessing,
        patches: Patches,
    ):
        self.network = network
        self.preprocessing = preprocessing
        directions, shares = patches
        self._directions = Constant(directions)
        self._shares = Constant(shares)

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return (self.network,)

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        features = self.network(seen(image, region, self.preprocessing))
        directions = unit(as_tokens(features))  # [B, N, C]
        cosines = self._directions.like(directions) @ directions.transpose(1, 2)  # [B, M, N]
        if region is not None:
            cosines = self._inside(cosines, features, image, region)
        return (1.0 - cosines.amax(2)) @ self._shares.like(cosines)

    def _inside(self, cosines: Tensor, features: Tensor, image: Tensor, region: Tensor) -> Tensor:
        """The cosines with patches of the region; with others they are those of opposites."""
        shown = region.detach().to(image).expand(len(image), -1, -1, -1)
        _, counts = reference_view(image.detach(), shown, self.preprocessing)
        weights = None if counts is None else patch_weights(features, counts)
        if weights is None:
            return cosines
        outside = weights < INSIDE * weights.amax(1, keepdim=True)
        return cosines.masked_fill(outside[:, None], -1.0)


def reference_patches(
    features: Tensor, weights: Tensor | Sequence[float], counts: Tensor | None = None
) -> Patches:
    """Directions ``[M, C]`` of the patches of R references that count, and their shares ``[M]``.

    Args:
        features: tokens ``[R, N, C]`` or a map ``[R, C, h, w]``.
        weights: one positive weight for each reference, ``[R]``, relative to each other.
        counts: ``[R, 1, H, W]`` in [0, 1], how much of the network's input counts, or None.
    """
    directions = unit(as_tokens(features))  # [R, N, C]
    shares = None if counts is None else patch_shares(features, counts)
    if shares is None:
        shares = directions.new_full(directions.shape[:2], 1.0 / directions.shape[1])
    weights = torch.as_tensor(weights).to(shares)
    shares = (weights / weights.sum())[:, None] * shares
    known = shares.flatten() > 0.0
    return directions.flatten(0, 1)[known], shares.flatten()[known]
