"""sRGB to CIE Lab, finite with its first two derivatives for every real input, and to luma.

IEC 61966-2-1 (sRGB primaries and transfer curve) and CIE 15 (Lab) with the D65 white of sRGB. The
straight pieces at the dark ends of both curves are continued below 0, the curved pieces above 1.
Written here because conversions meant for images in [0, 1] raise negative numbers to fractional
powers in the branch that is not selected, and the gradient of a dark pixel becomes NaN.
"""

import torch
from torch import Tensor

from ..transfers import numbers

__all__ = ["luma", "srgb_to_lab"]

# Luma of sRGB values, ITU-R BT.709.
LUMA = (0.2126, 0.7152, 0.0722)

# sRGB transfer curve: u / 12.92 up to the knee, ((u + 0.055) / 1.055)^2.4 above.
SRGB_KNEE = 0.04045
# Linear sRGB to XYZ, rows X, Y, Z divided by the D65 white, so that white maps to (1, 1, 1).
LINEAR_TO_RELATIVE_XYZ = (
    (0.4338873, 0.3762240, 0.1898886),
    (0.2126390, 0.7151687, 0.0721923),
    (0.0177500, 0.1094476, 0.8728023),
)
# Lab curve: cube root above (6/29)^3, the tangent's straight line below.
LAB_KNEE = (6.0 / 29.0) ** 3


def srgb_to_lab(colors: Tensor) -> Tensor:
    """``[B, 3, ...]`` sRGB, nominally in [0, 1], to Lab: L in [0, 100], a and b about +-100."""
    matrix = torch.stack([numbers(row, colors) for row in LINEAR_TO_RELATIVE_XYZ])
    xyz = torch.einsum("kc,bc...->bk...", matrix, _linear(colors))
    x, y, z = _lab_curve(xyz).unbind(1)
    return torch.stack((116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)), dim=1)


def luma(image: Tensor) -> Tensor:
    """The brightness of a gray print, ``[B, 3, H, W]`` sRGB to ``[B, 1, H, W]`` in [0, 1]."""
    return (image * numbers(LUMA, image).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _linear(u: Tensor) -> Tensor:
    # Each branch sees only arguments of its own side: an unselected NaN would spoil the gradient.
    curved = ((u.clamp_min(SRGB_KNEE) + 0.055) / 1.055) ** 2.4
    return torch.where(u > SRGB_KNEE, curved, u / 12.92)


def _lab_curve(t: Tensor) -> Tensor:
    curved = t.clamp_min(LAB_KNEE) ** (1.0 / 3.0)
    return torch.where(t > LAB_KNEE, curved, t * (29.0 / 6.0) ** 2 / 3.0 + 4.0 / 29.0)
