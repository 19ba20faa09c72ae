"""Calibration: how strongly a run guides, found at the first look that corrects anything.

The default step rules set the length of a correction, not its effect: that differs from model to
model. It is measured: the prediction is moved along the combined direction by several strengths,
decoded and looked at, without the model. The strength of the run is the largest up to which every
condition's energy is lower than without a correction.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .denoiser_gradient import is_out_of_memory
from .direction import Direction, Look
from .run_report import RunReport
from .settings import GuidanceSettings
from .steps import StepState, step
from .trace import Calibration, rounded
from .transfers import fetched

__all__ = ["FACTORS", "RunStrength", "strongest_fall"]

# The strengths that are tried, in parts of the one that is set.
FACTORS = (0.1, 0.2, 0.4, 0.8, 1.6)


class RunStrength:
    """The strength of one run: as it is set, or found at the first look with a gradient.

    Args:
        settings: the settings of the run.
        report: told what was found.
    """

    def __init__(self, settings: GuidanceSettings, report: RunReport):
        self._set = settings.strength
        self._rule = settings.step_rule
        # A step to a sphere has the sphere's length.
        self._wanted = settings.calibrate and settings.step_rule != "spherical"
        self._found: Calibration | None = None
        self._report = report

    @property
    def value(self) -> float:
        """The strength of the next correction."""
        return self._found.strength if self._found else self._set

    @property
    def is_open(self) -> bool:
        """Whether the next look is to find the strength."""
        return self._wanted and self._found is None

    def find(
        self,
        state: StepState,
        look: Look,
        made: Direction,
        energies_of: Callable[[Tensor], Sequence[Tensor]],
        number: int,
    ) -> None:
        """Find the strength of the rest of the run, one for all pictures, and tell the report.

        The energies of a condition are averaged over the pictures in which it pulls: one picture
        that does not answer leaves the others their strength. Where none pulls the next look is to
        find it; without the memory for it the strength stays as it is set.

        Args:
            state: where the step begins, and its direction.
            look: what is looked at; what this takes is counted in it.
            made: the direction there.
            energies_of: the energies of the n conditions of the look, n times ``[B]``, of another
                prediction.
            number: the sampler step that is made.
        """
        try:
            with torch.no_grad():
                self._found = self._tried(state, look, made, energies_of, number)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._wanted = False
            self._report.warn(
                "not enough memory to calibrate: choose a TAESD or a smaller latent; strength "
                f"stays {self._set:g}"
            )
        if self._found:
            self._report.calibrated(self._found)

    def _tried(
        self,
        state: StepState,
        look: Look,
        made: Direction,
        energies_of: Callable[[Tensor], Sequence[Tensor]],
        number: int,
    ) -> Calibration | None:
        names = [condition.name for condition in look.active]
        tried = [self._set * factor for factor in FACTORS]
        moved = [step(state, self._rule, strength) for strength in tried]
        goes = (moved[-1] != state.prediction).flatten(1).any(1)  # a direction of 0 does not
        (pulls,) = fetched([made.own.valid & goes])
        if not pulls.any():
            return None
        with look.meter.piece("calibration", *names):
            # Energies of a neighborhood are no measure for those of one prediction.
            here = energies_of(made.prediction) if look.neighbors else made.record["energies"]
            looks = [torch.stack(list(here))]
            looks += [torch.stack(list(energies_of(prediction))) for prediction in moved]
        (energies,) = fetched([torch.stack(looks)])
        counts = pulls & torch.isfinite(energies[0])
        guiding = [i for i in range(len(names)) if counts[i].any()]
        if not guiding:
            return None
        means = torch.stack([energies[:, i, counts[i]].double().mean(1) for i in guiding])
        chosen = strongest_fall(means)
        return Calibration(
            strength=rounded(tried[max(chosen, 0)]),
            step=number,
            tried=rounded(tried),
            conditions=[names[i] for i in guiding],
            energies=rounded(means),
            rising=[] if chosen >= 0 else _rising(means, [names[i] for i in guiding]),
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
