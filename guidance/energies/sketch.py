"""Sketch: the picture's edges should lie on the lines of the reference.

Edges are scale-normalized Gaussian derivatives (Lindeberg, "Edge detection and ridge detection with
automatic scale selection", IJCV 1998): sigma * |gradient of the blurred picture| does not depend on
the resolution. Divided by their own RMS they do not depend on the contrast either.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..pictures.color_spaces import luma as luma_of
from ..pictures.references import Reference
from ..pictures.smoothing import (
    block_below,
    normalized_blur,
    pooled,
    slope_power,
    weighted_mean,
)

__all__ = ["Sketch"]

# A line at least this wide (sigma in pixels) is resolved by central differences.
NARROWEST = 0.8

# Edge strengths are in units where a step from black to white peaks at 1 / sqrt(2 pi) = 0.4.
# Strengths below ROUNDING are smoothed to zero, so that the magnitude is differentiable in flat
# areas. FLOOR is the RMS edge strength below which a picture counts as flat and its edges are not
# amplified further; portraits have 0.02 to 0.05, a tenth of that in the dark.
ROUNDING = 0.002
FLOOR = 0.002


class Sketch:
    """``E = sum w (e(image) - e(reference))^2 / sum w``, ``w`` the region,
    and of it what counts of the reference.

    ``e`` is the edge map divided by its RMS over the region, so that E is 0 for equal edges and
    between 1 and 2 for unrelated ones, whatever the two contrasts. The edges of a photograph are
    ``sigma |grad(G * luma)|``, the magnitude smoothed as ``sqrt(|.|^2 + delta^2) - delta``. The
    lines of a drawing are ``G * |luma - paper|``: a step blurred by a Gaussian has a Gaussian
    derivative, so that a line looks like the edge that it stands for.

    Args:
        reference: ``[R, 3, h, w]`` RGB in [0, 1]; R is 1 or the batch size of the images.
            Pictures of another size are scaled to fill the image, what overhangs cut evenly.
        drawing: the reference is a line drawing on plain paper, its lines are the edges. Dark lines
            on light paper and the reverse are the same: the paper is the picture's median luma.
        line_width: standard deviation of G as a fraction of the image's height, > 0. A wider line
            tolerates larger displacements and prescribes less detail.
        mask: ``[R, 1, h, w]`` in [0, 1], how much of the reference's pixels counts, or None.

    Raises:
        ValueError: ``reference`` has another shape, or ``line_width`` is not positive.
    """

    describes_places = True  # what it asks for lies at places of the whole picture

    def __init__(
        self,
        reference: Tensor,
        drawing: bool = False,
        line_width: float = 0.012,
        mask: Tensor | None = None,
    ):
        if not line_width > 0.0:
            raise ValueError(f"line width must be > 0, got {line_width}")
        self.reference = Reference(reference, mask)
        self.drawing = drawing
        self.line_width = line_width

    @property
    def goal(self) -> float | None:
        """0, the energy of the photograph; None of a drawing, whose lines no edges equal."""
        return None if self.drawing else 0.0

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        weights = self.reference.weights(image, region)  # [1 or B, 1, H, W]
        sigma = max(NARROWEST, self.line_width * image.shape[-2])
        with torch.no_grad():
            target, _ = self._target(image, weights, sigma)
        lines, inner = _lines(luma_of(image), weights, sigma, _edges)
        return weighted_mean((lines - target).square(), inner)

    def _target(self, image: Tensor, weights: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        luma = luma_of(self.reference.at(image))  # [1 or B, 1, H, W]
        if not self.drawing:
            return _lines(luma, weights, sigma, _edges)
        paper = self._paper(luma, image)
        return _lines((luma - paper).abs(), weights, sigma, _strokes)

    def _paper(self, luma: Tensor, image: Tensor) -> Tensor:
        """The median luma of what counts of each reference, ``[1 or B, 1, 1, 1]``."""
        if self.reference.mask is None:
            return luma.flatten(1).median(1).values.view(-1, 1, 1, 1)
        counts = self.reference.weights(image, None) > 0.5
        known = torch.where(counts | ~counts.flatten(1).any(1).view(-1, 1, 1, 1), luma, torch.nan)
        return known.flatten(1).nanmedian(1).values.view(-1, 1, 1, 1)


def _lines(
    field: Tensor, weights: Tensor, sigma: float, strength: Callable[..., Tensor]
) -> tuple[Tensor, Tensor]:
    """The line map of ``[B, 1, H, W]`` at unit contrast and its weights, ``[1 or B, 1, h, w]``."""
    block = block_below(sigma)
    field, weights = pooled(field, weights, block)
    inner = _inner(weights)
    return _at_unit_contrast(strength(field, weights, sigma / block), inner), inner


def _edges(luma: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """Edge strength of a photograph, ``[B, 1, H - 2, W - 2]``, border pixels left out."""
    return (slope_power(luma, weights, sigma) + ROUNDING**2).sqrt() - ROUNDING


def _strokes(ink: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """Line strength of a drawing, ``[B, 1, H - 2, W - 2]``, from its ink ``[B, 1, H, W]``."""
    return _inner(normalized_blur(ink, weights, sigma))


def _at_unit_contrast(lines: Tensor, weights: Tensor) -> Tensor:
    """``lines`` divided by their RMS over the region, a flat picture left flat."""
    power = weighted_mean(lines.square(), weights).view(-1, 1, 1, 1)
    return lines / (power + FLOOR**2).sqrt()


def _inner(field: Tensor) -> Tensor:
    """Without the outermost pixels, where no central difference exists."""
    return field[..., 1:-1, 1:-1]
