"""Random draws of a guided run: each from a stream of its own, whatever else is drawn.

A stream is chosen by (purpose, seed, index of the picture, sigma, repeat). A picture therefore
meets the same draws alone and in a batch, in one sampling run and in one that is split, and never
ComfyUI's draws, which seeds its own generator with the bare seed.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["RandomStreams", "seed_of"]

SEED_BITS = 63  # PyTorch takes as many


def seed_of(name: str, bits: int = SEED_BITS) -> int:
    """A seed of so many bits that follows from ``name``: another name has another one."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> (64 - bits)


class RandomStreams:
    """The random draws of one run."""

    def __init__(self, seed: int = 0, indices: Sequence[int] | None = None):
        """
        Args:
            seed: the seed of the run.
            indices: the index of each picture in its batch as ComfyUI counts it, so that one
                picture taken out of a batch keeps its draws; None: 0, 1, 2 and so on.
        """
        self.seed = seed
        self.indices = None if indices is None else tuple(indices)

    def normal(self, like: Tensor, sigma: float, repeat: int, purpose: str = "noise") -> Tensor:
        """Standard normal noise ``[B, ...]`` like ``like``; ``noise`` is that of re-noising."""
        shape = like.shape[1:]
        drawn = [
            torch.randn(shape, generator=self._generator(purpose, index, sigma, repeat))
            for index in self._indices(like.shape[0])
        ]
        return torch.stack(drawn).to(like)

    def shifts(self, batch: int, reach: int, sigma: float, repeat: int) -> list[tuple[int, int]]:
        """For each picture of the batch (rows, columns), uniform in ``[-reach, reach]``."""
        return [
            tuple(
                torch.randint(
                    -reach,
                    reach + 1,
                    (2,),
                    generator=self._generator("shift", index, sigma, repeat),
                ).tolist()
            )
            for index in self._indices(batch)
        ]

    def step_seed(self, sigma: float) -> int:
        """A seed for random choices that are the same for all pictures of a step."""
        return self._seed("step", sigma)

    def _indices(self, batch: int) -> Sequence[int]:
        # Another node may ask for a part of the batch or for tiles of it: then count anew.
        if self.indices is None or len(self.indices) != batch:
            return range(batch)
        return self.indices

    def _generator(self, purpose: str, index: int, sigma: float, repeat: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed(purpose, sigma, index, repeat))

    def _seed(self, purpose: str, sigma: float, *numbers: int) -> int:
        return seed_of(f"{purpose} {self.seed} {sigma:.6g} {numbers}")
