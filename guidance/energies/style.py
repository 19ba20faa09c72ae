"""Style: textures, brushwork and their colours, whatever the picture shows.

Gram matrices of a network's features (Gatys, Ecker and Bethge, "Image Style Transfer Using
Convolutional Neural Networks", CVPR 2016). With the tokens after the third block of CLIP's image
tower it is the style energy of FreeDoM (Yu et al., ICCV 2023) and Z-Magic, except that the distance
is squared and relative to the reference's size, so that networks can be compared.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..networks.preprocessing import Preprocessing
from .references import ordinary
from .regions import seen

__all__ = ["Style", "gram", "mean_grams"]


def gram(features: Tensor) -> Tensor:
    """``F^T F / N`` of each sample, in single precision or better.

    Half precision loses the small entries and overflows at the large ones.

    Args:
        features: tokens ``[B, N, C]`` or a map ``[B, C, h, w]``, of which every place is a token.

    Returns:
        ``[B, C, C]``.

    Raises:
        ValueError: the features have another number of dimensions.
    """
    if features.ndim == 4:
        features = features.flatten(2).transpose(1, 2)
    if features.ndim != 3:
        raise ValueError(
            "style features must be tokens [batch, tokens, channels] or maps "
            f"[batch, channels, height, width], got {list(features.shape)}"
        )
    if features.dtype != torch.float64:
        features = features.float()
    return features.transpose(1, 2) @ features / features.shape[1]


def mean_grams(features: Sequence[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    """Of each block the Gram matrix of several references, averaged with ``weights [R]``.

    Returns:
        For every entry of ``features``, each with R samples: ``[C, C]``.
    """
    shares = weights / weights.sum()
    return tuple(
        torch.einsum("r,rcd->cd", shares.to(matrices), matrices) for matrices in map(gram, features)
    )


class Style:
    """``E = mean_k |G_k(image) - G*_k|^2 / |G*_k|^2``, Frobenius norms, ``k`` the blocks.

    ``G*`` is that of the references. Unit: a relative squared distance, 0 for the same statistics,
    1 for a picture without features.

    Args:
        network: ``[B, C, h, w] ->`` the features after each block, as ``gram`` takes them.
        preprocessing: from a picture to its input.
        targets: ``G*_k``, one for each block: ``[C, C]`` for all pictures, or ``[B, C, C]``.

    Raises:
        ValueError: there is no target, or one of a network without any activity.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Sequence[Tensor]],
        preprocessing: Preprocessing,
        targets: Sequence[Tensor],
    ):
        if not targets or not all(target.abs().max() > 0.0 for target in targets):
            raise ValueError("Style Energy: the chosen blocks do not respond to the reference")
        self.network = network
        self.preprocessing = preprocessing
        self.targets = tuple(map(ordinary, targets))

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        features = self.network(seen(image, region, self.preprocessing))
        distances = [
            _relative_distance(gram(feature), target)
            for feature, target in zip(features, self.targets, strict=True)
        ]
        return torch.stack(distances).mean(0)


def _relative_distance(matrices: Tensor, target: Tensor) -> Tensor:
    """``|G_b - G*|^2 / |G*|^2`` for every sample: ``[B, C, C], [C, C] or alike -> [B]``."""
    target = target.to(matrices)
    return (matrices - target).square().sum((-2, -1)) / target.square().sum((-2, -1))
