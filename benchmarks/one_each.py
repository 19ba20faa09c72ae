"""A batch in which every picture has conditions of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zmagic.guidance.energies import RunEnergy
from zmagic.guidance.energies.energy import Energy

__all__ = ["OneEach"]


class OneEach:
    """An energy of a batch: to every picture its own.

    Args:
        energies: as many as the batch has pictures.
    """

    def __init__(self, energies: Sequence[Energy]):
        self.energies = tuple(energies)

    def begin_run(self) -> "OneEach":
        """The same energies with fresh state."""
        return OneEach([e.begin_run() if isinstance(e, RunEnergy) else e for e in self.energies])

    def begin_step(self, step: int | None) -> None:
        """Passed on to those that follow the run."""
        for energy in self.energies:
            if isinstance(energy, RunEnergy):
                energy.begin_step(step)

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """``[B]``."""
        pairs = zip(self.energies, image.split(1), strict=True)
        return torch.cat([energy(picture, region) for energy, picture in pairs])
