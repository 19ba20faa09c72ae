"""The search for a noise whose picture satisfies the conditions: models of one to a few steps.

The picture of such a model is a function of its noise that can be differentiated as a whole (ReNO,
arXiv 2406.04312). Each evaluation makes the picture, balances the conditions' gradients on it as a
guided step does, and brings the balance back to the noise in one product through all steps. What
must not happen is that the noise stops being noise: it stays in the set of ``white_noise``, and the
directions are brought to that set, too (arXiv 2602.08646), or it stays on its sphere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from .conditions import Condition
from .momentum import Momentum
from .norms import expand_like, rms
from .ranking import best_first, scores
from .settings import GuidanceSettings
from .white_noise import whitened

__all__ = [
    "MOMENTUM",
    "Ascent",
    "NoiseSearch",
    "acting",
    "best_of_each",
    "open_windows",
    "settings_of_search",
    "without_effect",
]

# The settings that a search follows, besides the path.
FOLLOWED = ("dependence", "look_ahead", "tasks", "order", "balance", "cagrad_c")

# The published optimizer is Adam, which is momentum with a scale for each number; directions that
# were brought to the set have one scale everywhere.
MOMENTUM = 0.9


@dataclass(frozen=True)
class NoiseSearch:
    """What a search may take, and how far it goes.

    Args:
        evaluations: how many noises are looked at, the given one among them, >= 1.
        rate: the RMS of a move, in that of the noise, > 0.
        white: whether noise and directions are brought to the spectral set of white noise; else
            the noise keeps its size alone.

    Raises:
        ValueError: a value is outside its range.
    """

    evaluations: int = 24
    rate: float = 0.1
    white: bool = True

    def __post_init__(self) -> None:
        if self.evaluations < 1:
            raise ValueError(f"evaluations must be at least 1, got {self.evaluations}")
        if not 0.0 < self.rate < float("inf"):
            raise ValueError(f"rate must be a number above 0, got {self.rate}")


class Ascent:
    """The moves of one search, each sample by itself.

    Args:
        noise: where it begins, ``[B, ...]``.
        search: how far it moves.
    """

    def __init__(self, noise: Tensor, search: NoiseSearch):
        self.noise = noise
        self._search = search
        self._size = rms(noise)
        self._momentum = Momentum(MOMENTUM)

    def move(self, direction: Tensor) -> Tensor:
        """Move along ``direction``, like the noise, and return the next noise.

        A sample without a finite direction, or with none, stays where it is.
        """
        flat = direction.flatten(1)
        goes = (torch.isfinite(flat).all(1) & flat.any(1)).view(-1, *[1] * (direction.ndim - 1))
        direction = torch.where(goes, direction, 0.0)
        if self._search.white:
            direction = whitened(direction)
        mean = self._momentum(direction)
        tiny = torch.finfo(torch.float32).tiny
        unit = mean / expand_like(rms(mean).clamp_min(tiny), mean)
        moved = self.noise + self._search.rate * unit
        if self._search.white:
            moved = whitened(moved)
        moved = moved * expand_like(self._size / rms(moved).clamp_min(tiny), moved)
        self.noise = torch.where(goes, moved, self.noise)
        return self.noise


def settings_of_search(settings: GuidanceSettings) -> GuidanceSettings:
    """The part of ``settings`` that a search follows: how conditions are balanced, and where.

    A search is no correction of predictions: what says how long and when those are stays at its
    default. Its gradient goes through the model once an evaluation, whatever the path: conditions
    look ahead in the predicted latent or in the picture, not in the noise.
    """
    path = {"full": "prediction", "no_backprop": "prediction", "image_no_backprop": "image"}
    chosen = {name: getattr(settings, name) for name in FOLLOWED}
    return GuidanceSettings(
        gradient_path=path.get(settings.gradient_path, settings.gradient_path), **chosen
    )


def acting(settings: GuidanceSettings) -> dict[str, Any]:
    """By name what a search follows of the settings that ``settings_of_search`` made."""
    return {name: getattr(settings, name) for name in ("gradient_path", *FOLLOWED)}


def without_effect(settings: GuidanceSettings) -> list[str]:
    """Sentences on what is set in ``settings`` and changes nothing in a search."""
    default, taken = GuidanceSettings(), settings_of_search(settings)
    idle = [
        f"{field.name} {getattr(settings, field.name)}"
        for field in fields(settings)
        if field.name not in acting(taken)
        and getattr(settings, field.name) != getattr(default, field.name)
    ]
    said = []
    if idle:
        said.append(
            f"{', '.join(idle)} of the settings (or of their preset) have no effect: a search "
            f"follows {', '.join(acting(taken))} alone"
        )
    if taken.gradient_path != settings.gradient_path:
        said.append(
            f"gradient_path {settings.gradient_path} is taken as {taken.gradient_path}: the "
            "gradient of a search goes through the model once"
        )
    return said


def open_windows(conditions: Sequence[Condition]) -> tuple[tuple[Condition, ...], list[str]]:
    """The conditions without windows, and the names of those that had one."""
    names = [c.name for c in conditions if (c.start, c.end) != (0.0, 1.0)]
    return tuple(replace(c, start=0.0, end=1.0) for c in conditions), names


def best_of_each(
    energies: Sequence[Sequence[Sequence[float]]], conditions: Sequence[Condition]
) -> list[int]:
    """The number of the best evaluation of each picture of the batch.

    Args:
        energies: by evaluation and condition, one for each picture.
        conditions: theirs, by whose weights they count.
    """
    weights = {c.name: c.weight for c in conditions}
    pictures = range(len(energies[0][0]))
    best = []
    for b in pictures:
        each = {
            c.name: [evaluation[j][b] for evaluation in energies] for j, c in enumerate(conditions)
        }
        best.append(best_first(scores(each, weights))[0])
    return best
