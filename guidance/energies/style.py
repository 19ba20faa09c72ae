"""Style: textures, brushwork and their colors, whatever the picture shows.

Gram matrices of a network's features (Gatys, Ecker and Bethge, "Image Style Transfer Using
Convolutional Neural Networks", CVPR 2016). With the tokens after the third block of CLIP's image
tower it is the style energy of FreeDoM (Yu et al., ICCV 2023) and Z-Magic, except that the distance
is squared and relative to the reference's size, so that networks can be compared.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..pictures.patches import as_tokens, patch_shares
from ..pictures.preprocessing import Preprocessing
from ..pictures.regions import seen
from ..transfers import Constant

__all__ = ["Style", "gram", "mean_grams"]


def gram(features: Tensor, counts: Tensor | None = None) -> Tensor:
    """``F^T F / N`` of each sample, in single precision or better.

    Half precision loses the small entries and overflows at the large ones.

    Args:
        features: tokens ``[B, N, C]`` or a map ``[B, C, h, w]``, of which every place is a token.
        counts: ``[B, 1, H, W]`` in [0, 1], how much of the network's input counts, which the
            tokens divide evenly among themselves; or None: all of it.

    Returns:
        ``[B, C, C]``.

    Raises:
        ValueError: the features have another number of dimensions.
    """
    if features.ndim not in (3, 4):
        raise ValueError(
            "style features must be tokens [batch, tokens, channels] or maps "
            f"[batch, channels, height, width], got {list(features.shape)}"
        )
    shares = None if counts is None else patch_shares(features, counts)
    features = as_tokens(features)
    if features.dtype != torch.float64:
        features = features.float()
    if shares is None:
        return features.transpose(1, 2) @ features / features.shape[1]
    return (features * shares[..., None].to(features)).transpose(1, 2) @ features


def mean_grams(
    features: Sequence[Tensor], weights: Tensor, counts: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Average the Gram matrices of several references with ``weights [R]``, for each block.

    Args:
        counts: ``[R, 1, H, W]``, how much of the network's input counts, or None.

    Returns:
        For every entry of ``features``, each with R samples: ``[C, C]``.
    """
    shares = weights / weights.sum()
    matrices = [gram(feature, counts) for feature in features]
    return tuple(torch.einsum("r,rcd->cd", shares.to(each), each) for each in matrices)


class Style:
    """``E = mean_k |G_k(image) - G*_k|^2 / |G*_k|^2``, Frobenius norms, ``k`` the blocks.

    ``G*`` is that of the references. Unit: a relative squared distance, 0 for the same statistics,
    1 for a picture without features.

    Args:
        network: takes ``[B, C, h, w]`` to the features after each block, as ``gram`` takes them.
        preprocessing: the way from a picture to the network's input.
        targets: the Gram matrices ``G*_k``, one for each block: ``[C, C]`` for all pictures, or
            ``[B, C, C]``.

    Raises:
        ValueError: there is no target, or one of a network without any activity.
    """

    goal = 0.0  # of a picture that is all that it asks for

    def __init__(
        self,
        network: Callable[[Tensor], Sequence[Tensor]],
        preprocessing: Preprocessing,
        targets: Sequence[Tensor],
    ):
        if not targets or not all(target.abs().max() > 0.0 for target in targets):
            raise ValueError("the chosen blocks do not respond to the reference")
        self.network = network
        self.preprocessing = preprocessing
        self._targets = tuple(map(Constant, targets))

    @property
    def targets(self) -> tuple[Tensor, ...]:
        """The reference's Gram matrices, one for each block."""
        return tuple(target.tensor for target in self._targets)

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return (self.network,)

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        features = self.network(seen(image, region, self.preprocessing))
        distances = [
            _relative_distance(matrices, target.like(matrices))
            for matrices, target in zip(map(gram, features), self._targets, strict=True)
        ]
        return torch.stack(distances).mean(0)

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        network: Callable[[Tensor], Sequence[Tensor]],
        preprocessing: Preprocessing,
        pictures: Tensor,
    ) -> "Style":
        """Make the energy of the style of ``pictures [R, 3, h, w]`` in [0, 1], which all count."""
        features = network(preprocessing(pictures))
        return cls(network, preprocessing, mean_grams(features, torch.ones(len(pictures))))


def _relative_distance(matrices: Tensor, target: Tensor) -> Tensor:
    """``|G_b - G*|^2 / |G*|^2`` for every sample: ``[B, C, C], [C, C] or alike -> [B]``."""
    return (matrices - target).square().sum((-2, -1)) / target.square().sum((-2, -1))
