"""White noise as a set that anything can be brought to: the spectral set of arXiv 2602.08646.

Noise is white if no frequency stands out. The independent coefficients of the Fourier transform of
N standard normal numbers are N/2 complex standard normal ones. They are cut into blocks of B, and
each block shall have the two norms that it has on average:

    |y|_1 = B sqrt(pi) / 2,    |y|_2^2 = B

The nearest such block has the same phases, and its magnitudes are those of the block behind a
threshold, scaled (the closed form of Liu et al., 2020, that the paper takes).
"""

import math

import torch
from torch import Tensor

__all__ = ["BLOCK", "whitened"]

BLOCK = 16  # coefficients of a block, as published
# |y|_1^2 / |y|_2^2 of a block, in units of its size.
FLATNESS = math.pi / 4.0


def whitened(x: Tensor) -> Tensor:
    """The point of the set that is nearest to ``x [B, ...]``, each sample by itself.

    It has the size of standard normal noise, RMS 1. Coefficients that are left over behind the last
    whole block (fewer than 16, and one of an odd number) stay as they are; a block of zeros, too.
    """
    flat = x.flatten(1).float()
    even = flat[:, : flat.shape[1] // 2 * 2]
    spectrum = _spectrum(even)
    whole = spectrum.shape[1] // BLOCK * BLOCK
    blocks = _nearest(spectrum[:, :whole].unflatten(1, (-1, BLOCK)))
    white = _signal(torch.cat([blocks.flatten(1), spectrum[:, whole:]], dim=1))
    white = torch.cat([white, flat[:, even.shape[1] :]], dim=1)
    return white.to(x).reshape(x.shape)


def _spectrum(x: Tensor) -> Tensor:
    """Real ``[B, N]`` to its N/2 independent coefficients: the two real ones make one."""
    full = torch.fft.rfft(x, norm="ortho")
    ends = torch.complex(full[:, :1].real, full[:, -1:].real) / math.sqrt(2.0)
    return torch.cat([ends, full[:, 1:-1]], dim=1)


def _signal(spectrum: Tensor) -> Tensor:
    """The inverse of ``_spectrum``."""
    ends = spectrum[:, :1] * math.sqrt(2.0)
    zero = torch.zeros_like(ends.real)
    first, last = torch.complex(ends.real, zero), torch.complex(ends.imag, zero)
    size = 2 * spectrum.shape[1]
    return torch.fft.irfft(torch.cat([first, spectrum[:, 1:], last], dim=1), n=size, norm="ortho")


def _nearest(blocks: Tensor) -> Tensor:
    """Complex blocks ``[..., BLOCK]`` to the nearest ones of both norms."""
    size, tiny = blocks.abs(), torch.finfo(blocks.real.dtype).tiny
    kept = (size - _threshold(size)).clamp_min(0.0)
    # Blocks of one magnitude, and of zeros, have no nearest one: those keep their shape.
    total = kept.sum(-1, keepdim=True)
    known = total > 1e-6 * size.sum(-1, keepdim=True)
    magnitudes = math.sqrt(FLATNESS) * BLOCK * kept / total.clamp_min(tiny)
    length = size.square().sum(-1, keepdim=True).sqrt().clamp_min(tiny)
    scaled = math.sqrt(BLOCK) * size / length
    phases = blocks / size.clamp_min(tiny)
    return torch.where(known, magnitudes, scaled) * phases


def _threshold(size: Tensor) -> Tensor:
    """What is taken off magnitudes ``[..., BLOCK]`` so that the rest has the wanted flatness.

    If k magnitudes stay above it, it is the root of a quadratic; the right k is the one whose root
    lies between the k-th magnitude and the next.
    """
    sorted_sizes = size.sort(dim=-1, descending=True).values
    wanted = FLATNESS * BLOCK
    fewest = math.floor(wanted) + 1  # fewer magnitudes are not flat enough, whatever they are
    counts = torch.arange(fewest, BLOCK + 1, device=size.device, dtype=size.dtype)
    sums = sorted_sizes.cumsum(-1)[..., fewest - 1 :]
    squares = sorted_sizes.square().cumsum(-1)[..., fewest - 1 :]
    spread = (counts * squares - sums.square()).clamp_min(0.0)
    roots = (sums - (wanted * spread / (counts - wanted)).sqrt()) / counts
    above = sorted_sizes[..., fewest - 1 :]
    below = torch.nn.functional.pad(sorted_sizes[..., fewest:], (0, 1), value=-math.inf)
    # By rounding it may lie just outside: the one that is least outside is taken.
    outside = torch.maximum(roots - above, below - roots)
    return roots.gather(-1, outside.argmin(-1, keepdim=True))
