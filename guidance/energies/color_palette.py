"""Color palette: the picture's colors should be distributed like the palette's.

Three kinds of palette, all compared in CIE Lab, squared distances divided by 100^2:

- a reference picture, or colors with proportions: the squared sliced Wasserstein distance
  (Bonneel et al., "Sliced and Radon Wasserstein Barycenters of Measures", JMIV 2015). The
  directions are fixed, so that the energy is a function of the image; on each of them the
  one-dimensional optimal transport is exact, whatever the weights of the pixels.
- colors without proportions: how much of each there is stays free, which a transport cannot
  express. Every pixel is drawn to its nearest colors and every color to its nearest pixels, with
  soft minima (a soft Chamfer distance).
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..pictures.color_spaces import srgb_to_lab
from ..pictures.references import Reference, ordinary
from ..pictures.smoothing import pooled, region_weights
from ..transfers import numbers

__all__ = ["ColorPalette"]

# Lab units in one unit of distance: white is at distance 1 from black.
LAB_UNIT = 100.0

# A distribution of colors needs no more pixels than this along the longer side; blocks of a larger
# image are averaged.
SIDE = 64

# Slices. 32 evenly spread directions measure the square of a shift of all colors within 3 %.
DIRECTIONS = 32
GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))

# Squared distance within which colors, or pixels, share a soft minimum: (10 Lab units)^2, clearly
# different shades of one color.
SOFTNESS = 0.01

# Copies of the palette (dtype and device) remembered by one energy; a run uses one.
COPIES_KEPT = 2


class ColorPalette:
    """Distance of the image's colors, weighted by the region, from a palette.

    With a picture or with proportions, over unit directions ``theta`` and quantiles ``t``:

        E = 3 mean_theta  integral_0^1 (Q_image(t; theta) - Q_palette(t; theta))^2 dt

    so that a shift of all colors by d in Lab costs ``(|d| / 100)^2``. With colors ``c_j`` alone,
    pixels ``x_p`` and ``m_p`` their share of the region:

        E = sum_p m_p softmin_j |x_p - c_j|^2 + mean_j softmin_p |x_p - c_j|^2

    where a color that covers a share f of the region costs ``-SOFTNESS log f`` in the second sum:
    little for a small share, much for none.

    Args:
        reference: ``[R, 3, h, w]`` RGB in [0, 1], R 1 or the batch size of the images; or None.
        colors: ``[J, 3]`` sRGB colors in [0, 1]; or None. Exactly one of the two is given.
        proportions: ``[J]`` positive shares of ``colors``, of any sum; None leaves them free.
        lightness: how much a difference in lightness counts against one in hue or chroma, >= 0;
            1 is Lab's own distance, 0 leaves light and shade free.
        mask: ``[R, 1, h, w]`` in [0, 1], how much of the reference's pixels counts, or None.

    Raises:
        ValueError: an argument has another shape or is outside its range.
    """

    def __init__(
        self,
        reference: Tensor | None = None,
        colors: Tensor | None = None,
        proportions: Tensor | None = None,
        lightness: float = 1.0,
        mask: Tensor | None = None,
    ):
        _check(reference, colors, proportions, lightness)
        self.lightness = lightness
        self.reference = None if reference is None else Reference(reference, mask)
        # A pure function of its arguments: remembering its last results changes no result.
        self._palette_like = lru_cache(COPIES_KEPT)(self._copy_palette)
        with torch.inference_mode(False), torch.no_grad():
            self._palette = self._encode(colors, proportions)

    @property
    def goal(self) -> float | None:
        """0, the energy of the same colors in the same shares; None where shares are free."""
        return None if len(self._palette) == 1 else 0.0

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        if self.reference is not None:
            self.reference.check_batch(image)
        points, masses = self._cloud(image, region_weights(region, image))
        palette = self._palette_like(image.dtype, image.device)
        if len(palette) == 1:
            return _soft_chamfer(points, masses, *palette)
        return _sliced_transport(points, masses, *palette)

    def _encode(self, colors: Tensor | None, proportions: Tensor | None) -> tuple[Tensor, ...]:
        """The colors ``[1, 3, J]``, or the quantile functions of the slices; in float64."""
        if self.reference is not None:
            pictures, mask = self.reference.pictures.double(), self.reference.mask
            counts = torch.ones_like(pictures[:1, :1]) if mask is None else mask.double()
            return _quantiles(*self._cloud(pictures, counts))
        assert colors is not None  # one of the two is given
        points = self._points(ordinary(colors).double().T[None])  # [1, 3, J]
        if proportions is None:
            return (points,)
        masses = ordinary(proportions).double()[None]
        return _quantiles(points, masses / masses.sum())

    def _copy_palette(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
        # Outside inference mode, whoever asks first: the result is remembered for others.
        with torch.inference_mode(False), torch.no_grad():
            return tuple(part.to(dtype).to(device) for part in self._palette)

    def _cloud(self, image: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The image's colors as points ``[B, 3, N]`` with masses ``[B, N]`` of sum 1."""
        block = math.ceil(max(image.shape[-2:]) / SIDE)
        colors, weights = pooled(image, weights, block)
        weights = weights.flatten(1).expand(len(image), -1)
        total = weights.sum(1, keepdim=True).clamp_min(torch.finfo(weights.dtype).eps)
        return self._points(colors.flatten(2)), weights / total

    def _points(self, colors: Tensor) -> Tensor:
        """sRGB ``[B, 3, N]`` to Lab with weighted lightness, in units of LAB_UNIT."""
        axes = numbers([self.lightness, 1.0, 1.0], colors) / LAB_UNIT
        return srgb_to_lab(colors) * axes[:, None]


def _check(
    reference: Tensor | None, colors: Tensor | None, proportions: Tensor | None, lightness: float
) -> None:
    if (reference is None) == (colors is None):
        raise ValueError("expected a reference or colors, got both or neither")
    if not lightness >= 0.0:
        raise ValueError(f"lightness must be >= 0, got {lightness}")
    if colors is not None and (colors.ndim != 2 or colors.shape[1] != 3 or len(colors) == 0):
        raise ValueError(f"colors must be [J, 3], got {list(colors.shape)}")
    if proportions is None:
        return
    if colors is None or proportions.shape != colors.shape[:1] or not (proportions > 0.0).all():
        raise ValueError(
            f"proportions must be one positive number for each color, got {proportions.tolist()}"
        )


def _soft_chamfer(points: Tensor, masses: Tensor, colors: Tensor) -> Tensor:
    """For ``points [B, 3, N]`` of ``masses [B, N]`` and ``colors [1, 3, J]``: ``[B]``."""
    distances = (points[:, :, None] - colors[..., None]).square().sum(1)  # [B, J, N]
    near = -distances / SOFTNESS
    to_color = -SOFTNESS * near.logsumexp(1)  # [B, N]
    log_masses = masses.clamp_min(torch.finfo(masses.dtype).tiny).log()[:, None]
    to_pixel = -SOFTNESS * (near + log_masses).logsumexp(2)  # [B, J]
    return (masses * to_color).sum(1) + to_pixel.mean(1)


def _sliced_transport(
    points: Tensor, masses: Tensor, levels: Tensor, integrals: Tensor, power: Tensor
) -> Tensor:
    """Squared sliced Wasserstein distance of the cloud from the palette of `_quantiles`: ``[B]``.

    On a slice the cheapest transport gives each pixel the part of the palette's quantile function
    that its own mass covers in sorted order. With q the mean of that part, the cost is
    ``sum m (u - q)^2`` plus what varies inside the parts, ``integral Q^2 - sum m q^2``. Moving the
    pixels changes the first sum alone, until two of them change places: there the gradient jumps by
    a share of one pixel, which a finite difference sees and a second derivative does not.
    """
    slices = torch.einsum("kc,bcn->bkn", _directions(points), points)  # [B, K, N]
    masses = masses[:, None].expand_as(slices)
    with torch.no_grad():
        order = slices.argsort(-1)
        sorted_masses = masses.gather(-1, order)
        reached = _interpolate(levels, integrals, sorted_masses.cumsum(-1))
        parts = torch.diff(reached, prepend=torch.zeros_like(reached[..., :1]))
        means = parts / sorted_masses.clamp_min(torch.finfo(parts.dtype).tiny)
        targets = torch.zeros_like(slices).scatter(-1, order, means)
        inside = (power - (masses * targets.square()).sum(-1)).clamp_min(0.0)  # [B, K]
    moved = (masses * (slices - targets).square()).sum(-1)  # [B, K]
    # The mean of (theta . d)^2 over all directions is |d|^2 / 3.
    return 3.0 * (moved + inside).mean(1)


def _quantiles(points: Tensor, masses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The quantile functions Q of a cloud ``[R, 3, n]`` with masses ``[R, n]`` on the slices.

    Returns:
        ``levels``: cumulative mass, ``[R, K, n + 1]`` from 0 to 1.
        ``integrals``: the integral of Q from 0 to each level, ``[R, K, n + 1]``.
        ``power``: the integral of Q^2 over [0, 1], ``[R, K]``.
    """
    slices, order = torch.einsum("kc,rcn->rkn", _directions(points), points).sort(-1)
    masses = masses[:, None].expand_as(slices).gather(-1, order)
    levels = F.pad(masses.cumsum(-1), (1, 0))
    integrals = F.pad((masses * slices).cumsum(-1), (1, 0))
    return levels, integrals, (masses * slices.square()).sum(-1)


def _interpolate(knots: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """Straight lines through ``(knots, values) [1 or B, K, n + 1]``, evaluated at ``[B, K, N]``."""
    knots, values = (part.expand(len(at), -1, -1).contiguous() for part in (knots, values))
    right = torch.searchsorted(knots, at.contiguous()).clamp(1, knots.shape[-1] - 1)
    left = right - 1
    start, end = knots.gather(-1, left), knots.gather(-1, right)
    # Pixels of no mass make knots that coincide.
    share = ((at - start) / (end - start).clamp_min(torch.finfo(at.dtype).tiny)).clamp(0.0, 1.0)
    return values.gather(-1, left).lerp(values.gather(-1, right), share)


def _directions(like: Tensor) -> Tensor:
    """Unit vectors ``[K, 3]`` spread evenly over a half sphere (a Fibonacci lattice)."""
    steps = torch.arange(DIRECTIONS, dtype=like.dtype, device=like.device)
    height = (steps + 0.5) / DIRECTIONS
    radius = (1.0 - height.square()).sqrt()
    angle = GOLDEN_ANGLE * steps
    return torch.stack((radius * angle.cos(), radius * angle.sin(), height), dim=1)
