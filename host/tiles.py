"""A picture decoded in overlapping tiles, one at a time: what a gradient saves is one tile's.

The decode in tiles is a function of its own, and its gradient is exact: tiles are joined by fixed
weights, and each is a block that saves only its latent. It is not the decode of the whole latent:
the group norms and the attention of a VAE see one tile and no more, so that tints and contrast
differ from tile to tile. A decoder without either (TAESD) shows the same to a thousandth of the
contrast; one of SD's layout with random weights differs by a third of it.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["has_tiles", "in_tiles"]

# Latent pixels: the longest side of a tile, and what two neighbors share at least.
SIDE, SHARED = 48, 8

Tensors = Callable[[Tensor], Tensor]


def has_tiles(shape: Sequence[int]) -> bool:
    """Whether latents of ``shape [B, C, ..., H, W]`` are more than one tile."""
    return shape[0] > 1 or max(shape[-2:]) > SIDE


def in_tiles(decode: Tensors, latent: Tensor, call: Callable[[Tensors, Tensor], Tensor]) -> Tensor:
    """Decode ``latent [B, C, ..., H, W]``, each picture in tiles, in single precision.

    Args:
        decode: takes a latent to a picture that is larger by a whole factor.
        call: calls ``decode`` for one tile, as a block where blocks save only their inputs.
    """
    rows, columns = map(_starts, latent.shape[-2:])
    height, width = map(_side, latent.shape[-2:])

    def tile(one: Tensor, top: int, left: int) -> Tensor:
        # A copy: a block keeps what it is given, and a view would keep the whole latent.
        part = one[..., top : top + height, left : left + width].clone()
        return call(decode, part).float()

    def strip(one: Tensor, top: int) -> Tensor:
        return _joined([tile(one, top, left) for left in columns], columns, width, -1)

    return torch.cat(
        [_joined([strip(one, top) for top in rows], rows, height, -2) for one in latent.split(1)]
    )


def _number(length: int) -> int:
    """How many tiles there are along a side."""
    return max(1, math.ceil((length - SHARED) / (SIDE - SHARED)))


def _side(length: int) -> int:
    """The length of each, all the same."""
    number = _number(length)
    return math.ceil((length + (number - 1) * SHARED) / number)


def _starts(length: int) -> list[int]:
    last = _number(length) - 1
    return [k * (length - _side(length)) // max(last, 1) for k in range(last + 1)]


def _joined(parts: Sequence[Tensor], starts: Sequence[int], side: int, axis: int) -> Tensor:
    """Pictures of tiles one after the other, faded into each other where they share pixels."""
    scale = parts[0].shape[axis] // side
    whole = parts[0]
    for part, (before, start) in zip(parts[1:], itertools.pairwise(starts), strict=True):
        shared = (before + side - start) * scale
        ramp = (torch.arange(shared, device=part.device, dtype=part.dtype) + 0.5) / shared
        ramp = ramp.view(-1, *[1] * (-1 - axis))
        kept = whole.shape[axis] - shared
        old, new = whole.narrow(axis, kept, shared), part.narrow(axis, 0, shared)
        rest = part.narrow(axis, shared, part.shape[axis] - shared)
        whole = torch.cat(
            [whole.narrow(axis, 0, kept), (1.0 - ramp) * old + ramp * new, rest], axis
        )
    return whole
