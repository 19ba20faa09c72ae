"""A condition is an energy with its weight, its window of the sampling and its region."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from .energy import Energy, RandomEnergy, RunEnergy, networks_of
from .live_regions import LiveRegion
from .schedule import SAME_SIGMA

__all__ = [
    "Condition",
    "active_conditions",
    "begin_run",
    "begin_step",
    "lies_within",
    "region_at",
    "reports",
    "with_distinct_names",
]

# Resolutions kept of one region; a run asks for one.
FITTED_KEPT = 2


@dataclass(frozen=True, eq=False)
class Condition:
    """One attribute the image must satisfy.

    Args:
        name: what reports and errors call the condition.
        energy: ``energy(image [B,3,H,W], region) -> [B]``, lower is better.
        weight: strength relative to the other conditions, >= 0; 0 switches it off. The engine
            divides every gradient by its own RMS first, so equal weights pull equally.
        start, end: its window as fractions of the sampling, 0 <= start <= end <= 1, counted like
            ComfyUI's ``start_percent`` and ``end_percent``.
        region: ``[1 or B, H, W]`` mask in [0, 1] of any resolution, one that follows the picture,
            or None for the whole image.
        satisfied_at: the energy below which the condition does not pull, picture by picture; None:
            it always does.
        warnings: sentences about how it was set up, for the report of every run.

    Raises:
        ValueError: a value is outside its range.
    """

    name: str
    energy: Energy
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    region: Tensor | LiveRegion | None = None
    satisfied_at: float | None = None
    warnings: tuple[str, ...] = ()
    fitted_region: Callable[..., Tensor] = field(init=False, repr=False)  # see region_at

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0.0):
            raise ValueError(f"{self.name}: weight must be a number >= 0, got {self.weight}")
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise ValueError(
                f"{self.name}: the window needs 0 <= start <= end <= 1, "
                f"got start {self.start} and end {self.end}"
            )
        if self.satisfied_at is not None and not math.isfinite(self.satisfied_at):
            raise ValueError(f"{self.name}: satisfied_at must be finite, got {self.satisfied_at}")
        if not isinstance(self.region, Tensor):
            return
        if self.region.ndim != 3:
            raise ValueError(
                f"{self.name}: region must be a mask [B, H, W], got {list(self.region.shape)}"
            )
        remembered = lru_cache(FITTED_KEPT)(partial(_fitted, self.region))
        object.__setattr__(self, "fitted_region", remembered)

    @property
    def networks(self) -> tuple:
        """The networks of energy and region; its caller must have them in memory by then."""
        return networks_of(self.energy, self.region)

    @property
    def nowhere(self) -> bool:
        """Whether the region is a mask without a single pixel."""
        return isinstance(self.region, Tensor) and not bool((self.region > 0.0).any())

    def is_active(self, sigma: float, sigma_at: Callable[[float], float]) -> bool:
        """Whether the condition guides at noise level ``sigma``."""
        if self.weight == 0.0 or self.start == self.end or self.nowhere:
            return False
        return lies_within(sigma, self.start, self.end, sigma_at)


def lies_within(sigma: float, start: float, end: float, sigma_at: Callable[[float], float]) -> bool:
    """Whether a noise level lies in a window of the sampling, given by fractions of it.

    The window's ends are often those of the schedule.
    """
    low, high = sigma_at(end), sigma_at(start)
    return low * (1.0 - SAME_SIGMA) <= sigma <= high * (1.0 + SAME_SIGMA)


def active_conditions(
    conditions: tuple[Condition, ...],
    sigma: float,
    sigma_at: Callable[[float], float],
) -> tuple[Condition, ...]:
    """The conditions that guide at ``sigma``, in the order in which they were connected."""
    return tuple(c for c in conditions if c.is_active(sigma, sigma_at))


def with_distinct_names(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """The same conditions, a repeated name numbered: ``Sketch``, ``Sketch 2``."""
    seen: Counter[str] = Counter()
    named = []
    for condition in conditions:
        seen[condition.name] += 1
        count = seen[condition.name]
        name = condition.name if count == 1 else f"{condition.name} {count}"
        named.append(replace(condition, name=name))
    return tuple(named)


def begin_run(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """The same conditions with energies and live regions whose state is this run's own.

    A region that several of them have is looked for once for all.
    """
    conditions = tuple(conditions)
    live = {c.region: c.region.begin_run() for c in conditions if isinstance(c.region, LiveRegion)}
    begun = []
    for c in conditions:
        energy = c.energy.begin_run() if isinstance(c.energy, RunEnergy) else c.energy
        region = live[c.region] if isinstance(c.region, LiveRegion) else c.region
        same = energy is c.energy and region is c.region
        begun.append(c if same else replace(c, energy=energy, region=region))
    return tuple(begun)


def begin_step(conditions: Iterable[Condition], step: int | None, seed: int = 0) -> None:
    """Tell the energies that follow the run that ``step`` begins; None: the finished image.

    Args:
        conditions: the conditions that are active in the step.
        step: the number of the sampler step in the run, from 0.
        seed: the seed of the random choices that an energy makes for this step.
    """
    for condition in conditions:
        if isinstance(condition.energy, RandomEnergy):
            condition.energy.draw_from(seed)
        if isinstance(condition.energy, RunEnergy):
            condition.energy.begin_step(step)
        if isinstance(condition.region, LiveRegion):
            condition.region.begin_step(step)


def reports(conditions: Iterable[Condition], kind: str) -> list[str]:
    """Sentences of conditions, their energies and regions, each behind the name of its condition.

    Args:
        conditions: the conditions of the run.
        kind: ``notes`` or ``warnings``, the method that is asked of those that have it.
    """
    return [
        f"{condition.name}: {sentence}"
        for condition in conditions
        for sentence in (
            *(condition.warnings if kind == "warnings" else ()),
            *getattr(condition.energy, kind, list)(),
            *getattr(condition.region, kind, list)(),
        )
    ]


def region_at(condition: Condition, image: Tensor) -> Tensor | None:
    """The condition's region at the image's resolution, ``[1 or B, 1, H, W]``, or None.

    Raises:
        ValueError: the region holds a number of masks that is neither 1 nor the batch size.
    """
    if condition.region is None:
        return None
    if isinstance(condition.region, LiveRegion):
        return condition.region.at(image)
    masks = len(condition.region)
    if masks not in (1, len(image)):
        raise ValueError(f"region has {masks} masks, expected 1 or the batch size {len(image)}")
    return condition.fitted_region(*image.shape[-2:], image.dtype, image.device)


def _fitted(
    region: Tensor, height: int, width: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """A region ``[R, h, w]`` at another resolution: ``[R, 1, height, width]``."""
    # Outside inference mode, whoever asks first: the result is remembered for others.
    with torch.inference_mode(False), torch.no_grad():
        region = region.to(device, dtype, copy=True)[:, None]
        if region.shape[-2:] != (height, width):
            size = (height, width)
            region = F.interpolate(region, size=size, mode="bilinear", antialias=True)
        return region.clamp(0.0, 1.0)
