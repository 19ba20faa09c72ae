"""Which of several pictures satisfies its conditions best, by their weighted energies.

Energies have scales of their own, and what of them can be had differs from condition to condition.
Each is counted in standard deviations from its mean over the pictures, so that equal weights count
equally, as they do in guidance.
"""

import math
from collections.abc import Mapping, Sequence

__all__ = ["best_first", "scores"]


def scores(energies: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> list[float]:
    """The score of each of N pictures, lower is better; 0 is their average.

    It is the mean over the conditions, by their weights, of how many standard deviations the
    energy is above the mean of all pictures. A condition to which all pictures are the same does
    not count, nor does one without a finite number for any of them, unless there is no other. A
    picture with an energy that is no finite number scores infinity.

    Args:
        energies: by condition, N energies each.
        weights: by condition, >= 0.
    """
    some = {name: each for name, each in energies.items() if any(map(math.isfinite, each))}
    energies = some or energies
    broken = [not all(map(math.isfinite, each)) for each in zip(*energies.values(), strict=True)]
    counted = [name for name in energies if weights[name] > 0.0]
    total = sum(weights[name] for name in counted)
    summed = [math.inf if is_broken else 0.0 for is_broken in broken]
    for name in counted:
        sound = [e for e, is_broken in zip(energies[name], broken, strict=True) if not is_broken]
        mean = math.fsum(sound) / max(1, len(sound))
        spread = math.sqrt(math.fsum((e - mean) ** 2 for e in sound) / max(1, len(sound)))
        if spread > 0.0:
            share = weights[name] / total
            summed = [
                score if is_broken else score + share * (energy - mean) / spread
                for score, energy, is_broken in zip(summed, energies[name], broken, strict=True)
            ]
    return summed


def best_first(scored: Sequence[float]) -> list[int]:
    """The numbers of the pictures from the lowest score up; equal ones in their order."""
    return sorted(range(len(scored)), key=scored.__getitem__)
