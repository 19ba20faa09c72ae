"""Calibration: how strongly a run guides, found at the first look that corrects anything.

The default step rules set the length of a correction, not its effect: that differs from model to
model. It is measured: the prediction is moved along the combined direction by several strengths,
decoded and looked at, without the model. The strength of the run is the largest up to which every
condition's energy is lower than without a correction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .settings import GuidanceSettings
from .steps import StepState, step
from .trace import Calibration, rounded
from .transfers import fetched

__all__ = ["FACTORS", "Probe", "RunStrength", "strongest_fall"]

# The strengths that are tried, in parts of the one that is set.
FACTORS = (0.1, 0.2, 0.4, 0.8, 1.6)


@dataclass(frozen=True)
class Probe:
    """What a calibration looks at.

    Args:
        names: those of the n conditions that guide.
        energies: theirs at the prediction, n times ``[B]``.
        pulls: whether each has a gradient in each picture, ``[n, B]``.
        energies_of: the n energies of another prediction, for as many pictures.
    """

    names: Sequence[str]
    energies: Sequence[Tensor]
    pulls: Tensor
    energies_of: Callable[[Tensor], Sequence[Tensor]]


class RunStrength:
    """The strength of one run: as it is set, or found at the first look with a gradient.

    Args:
        settings: the settings of the run.
    """

    def __init__(self, settings: GuidanceSettings):
        self._set = settings.strength
        self._rule = settings.step_rule
        # A step to a sphere has the sphere's length.
        self._wanted = settings.calibrate and settings.step_rule != "spherical"
        self._found: Calibration | None = None

    @property
    def value(self) -> float:
        """The strength of the next correction."""
        return self._found.strength if self._found else self._set

    @property
    def is_open(self) -> bool:
        """Whether the next look is to find the strength."""
        return self._wanted and self._found is None

    def find(self, state: StepState, probe: Probe, number: int) -> Calibration | None:
        """Find the strength of the rest of the run, one for all pictures.

        The energies of a condition are averaged over the pictures in which it pulls: one picture
        that does not answer leaves the others their strength.

        Args:
            state: where the step begins, and its direction.
            probe: the energies there and elsewhere.
            number: the sampler step that is made.

        Returns:
            What was found; None if no condition pulls here, and the next look is to find it.
        """
        tried = [self._set * factor for factor in FACTORS]
        looks = [torch.stack(tuple(probe.energies))]
        for strength in tried:
            moved = step(state, self._rule, strength)
            looks.append(torch.stack(tuple(probe.energies_of(moved))))
        goes = (moved != state.prediction).flatten(1).any(1)  # a direction of 0 does not
        energies, pulls = fetched([torch.stack(looks), probe.pulls & goes])
        counts = pulls & torch.isfinite(energies[0])
        guiding = [i for i in range(len(probe.names)) if counts[i].any()]
        if not guiding:
            return None
        means = torch.stack([energies[:, i, counts[i]].double().mean(1) for i in guiding])
        chosen = strongest_fall(means)
        self._found = Calibration(
            strength=rounded(tried[max(chosen, 0)]),
            step=number,
            tried=rounded(tried),
            conditions=[probe.names[i] for i in guiding],
            energies=rounded(means),
            rising=[] if chosen >= 0 else _rising(means, [probe.names[i] for i in guiding]),
        )
        return self._found

    def keep(self) -> str:
        """Take the strength that is set for lack of memory; a sentence that says so."""
        self._wanted = False
        return (
            "not enough memory to calibrate: choose a TAESD or a smaller latent; strength stays "
            f"{self._set:g}"
        )

    def forget(self) -> None:
        """Find it again: the direction of the last look was none."""
        self._found = None


def strongest_fall(energies: Tensor) -> int:
    """The place of the largest strength up to which all energies fall, -1: they never do together.

    To fall is to be lower than without a correction; up to it, so that an energy which comes down
    again far away counts for nothing.

    Args:
        energies: ``[n, S + 1]``, of n conditions without a correction and at S growing strengths;
            one that is not finite does not fall.
    """
    falls = (energies[:, 1:] < energies[:, :1]).all(0)
    return int(falls.long().cumprod(0).sum()) - 1


def _rising(means: Tensor, names: Sequence[str]) -> list[str]:
    falls = (means[:, 1] < means[:, 0]).tolist()
    return [name for name, fell in zip(names, falls, strict=True) if not fell]
