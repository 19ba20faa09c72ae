"""Depth: what is near and what is far should lie as in a depth map or a photograph.

A network estimates how near each place of the picture is, in a unit and with an offset that it does
not know itself (Ranftl et al., "Towards Robust Monocular Depth Estimation", TPAMI 2022): both are
left out by comparing with a correlation.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..energy import networks_of
from ..pictures.references import Reference
from ..pictures.regions import only_region_moves
from ..pictures.smoothing import region_weights, weighted_mean

__all__ = ["Depth"]

# Below this part of the mean square a variance is that of a plane without relief.
FLAT = 1e-7

# A map that varies less than this part of its own mean asks for nothing.
LEAST_RELIEF = 1e-3


class Depth:
    """``E = 1 - corr_w(near(image), target)``, the correlation over all places, ``w`` the region.

    Neither the target's scale nor an offset of it counts, nor do those of the estimate. The network
    sees the whole image; the gradient reaches the region only. Unit: 1 - correlation, 0 for the
    same relief, 1 for one that has nothing to do with it, 2 for its inversion.

    Args:
        estimator: takes ``image [B, 3, H, W]`` RGB in [0, 1] to nearness (inverse depth)
            ``[B, 1, h, w]`` of any resolution and unit. It may have ``networks``, as an energy has.
        target: the wanted nearness ``[R, 1, h, w]``, R 1 or the batch size; maps of another shape
            are scaled to fill the image, what overhangs cut evenly.
        mask: how much of each place of the target counts, ``[R, 1, h, w]`` in [0, 1], or None.

    Raises:
        ValueError: a target is flat where it counts, or has another shape.
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
        self.reference = Reference(target.expand(-1, 3, -1, -1), mask)
        _check_relief(target, mask)

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return networks_of(self.estimator)

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        near = self.estimator(only_region_moves(image, region))  # [B, 1, h, w]
        inside = F.interpolate(region_weights(region, image), size=near.shape[-2:], mode="area")
        weights = self.reference.weights(near, inside)
        return 1.0 - _correlation(near, self.reference.at(near)[:, :1], weights)


def _correlation(values: Tensor, others: Tensor, weights: Tensor) -> Tensor:
    """The weighted correlation ``[B]`` of maps ``[B, 1, h, w]``; 0 where one is flat."""
    values, others = _in_own_unit(values, weights), _in_own_unit(others, weights)
    spreads = _variance(values, weights) * _variance(others, weights)
    together = _covariance(values, others, weights)
    return together / (spreads + torch.finfo(spreads.dtype).eps ** 2).sqrt()


def _in_own_unit(values: Tensor, weights: Tensor) -> Tensor:
    """Divided by the mean magnitude, so that no number depends on the unit."""
    size = weighted_mean(values.abs(), weights)[:, None, None, None]
    return values / size.clamp_min(torch.finfo(values.dtype).eps)


def _variance(values: Tensor, weights: Tensor) -> Tensor:
    """The variance ``[B]``, at least that of a plane."""
    return _covariance(values, values, weights) + FLAT * weighted_mean(values.square(), weights)


def _covariance(values: Tensor, others: Tensor, weights: Tensor) -> Tensor:
    centered = values - weighted_mean(values, weights)[:, None, None, None]
    return weighted_mean(centered * others, weights)


def _check_relief(target: Tensor, mask: Tensor | None) -> None:
    weights = torch.ones_like(target) if mask is None else mask.to(target)
    relief = _covariance(target, target, weights).clamp_min(0.0).sqrt()
    flat = (relief <= LEAST_RELIEF * weighted_mean(target.abs(), weights)).nonzero().flatten()
    if len(flat):
        which = f"target {flat[0].item() + 1} of {len(target)}" if len(target) > 1 else "the target"
        raise ValueError(
            f"{which} is equally near everywhere, so that it asks for nothing: take a depth map "
            "with relief"
        )
