"""Noise levels: what is mixed into a picture at each step of a sampling (method section 1).

A noisy latent is ``x = alpha * x0 + s * n`` with ``n`` standard normal. Samplers name a level by
one number, sigma, and differ in what ``alpha`` and ``s`` are at it: the named constructors of
``Schedule`` are the three conventions in use.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "ALPHA_FLOOR",
    "SAME_SIGMA",
    "WHOLE",
    "NoiseLevel",
    "Schedule",
    "part_between",
]

# Relative difference below which two sigmas are the same step of the schedule.
SAME_SIGMA = 1e-4

# The part of a sampling that is all of it: from its start to its end.
WHOLE = (0.0, 1.0)
# Shares of steps within which a step counts as that of a place; roughly where the ends of a part
# are told by their noise levels.
EXACT, ROUGH = 1e-9, 0.1
# Models are trained on a thousand levels: a start that is no further in is the start.
LEAST_PART = 1e-3

# A flow model starts at alpha = 0, where x / alpha is infinite. The floor is the alpha at which
# the noise schedule of Stable Diffusion starts (sigma_max 14.6 = sqrt(1 - alpha^2) / alpha).
ALPHA_FLOOR = 0.0684


@dataclass(frozen=True)
class NoiseLevel:
    """The two coefficients of ``x = alpha * x0 + s * n`` at one noise level."""

    alpha: float
    s: float

    def clean(self, x: Tensor) -> Tensor:
        """Return ``x / alpha``, the noisy latent on the scale of the prediction."""
        return x / max(self.alpha, ALPHA_FLOOR)

    @property
    def posterior_spread(self) -> float:
        """The posterior spread ``s / sqrt(alpha^2 + s^2)``, in [0, 1].

        It is the standard deviation of ``x0 ~ N(0, 1)`` given ``x``: how much is still open.
        """
        return self.s / (self.alpha**2 + self.s**2) ** 0.5

    def noise(self, x: Tensor, prediction: Tensor) -> Tensor:
        """Return the noise ``n`` of ``x = alpha * prediction + s * n``, like x."""
        return (x - self.alpha * prediction) / max(self.s, torch.finfo(x.dtype).tiny)


@dataclass(frozen=True)
class Schedule:
    """The noise levels of one sampling, and the noise model at each.

    Args:
        sigmas: the noise levels of the sampler's steps, in their order, and last the one at which
            it ends.
        noise_level: the noise model at a sigma, also at one between two steps.
        sigma_at: takes a fraction of the sampling, 0 its start and 1 its end, to its sigma; the
            windows of conditions are given in such fractions.
        part: the part of a whole sampling that these steps are, as shares of its steps.
        is_rough: whether that is told by noise levels, and not by steps.
    """

    sigmas: tuple[float, ...]
    noise_level: Callable[[float], NoiseLevel]
    sigma_at: Callable[[float], float]
    part: tuple[float, float] = WHOLE
    is_rough: bool = False

    def is_within(self, step: int, share: float) -> bool:
        """Whether a step, from 0, is one of the first ``share`` of those of the whole sampling."""
        start, end = self.part
        slack = ROUGH if self.is_rough and self.part != WHOLE else EXACT
        return start + (end - start) * (step + slack) / (len(self.sigmas) - 1) < share

    def is_behind(self, share: float) -> bool:
        """Whether the whole sampling's first ``share``, if there is one, ends before this part."""
        return 0.0 < share <= self.part[0] + LEAST_PART

    def next_sigma(self, sigma: float) -> float:
        """The schedule's next noise level below ``sigma``; behind the last one 0."""
        lower = (s for s in self.sigmas if s < sigma * (1.0 - SAME_SIGMA))
        return max(lower, default=0.0)

    @classmethod
    def edm(cls, sigmas: Iterable[float]) -> "Schedule":
        """``x = x0 + sigma * n``: variance exploding models, and EDM (Karras et al., NeurIPS 2022).

        Args:
            sigmas: the noise levels of the steps, decreasing; the last one is that of the result,
                0 for a picture without noise. A tensor ``[steps + 1]`` will do.

        Raises:
            ValueError: ``sigmas`` are less than two, not decreasing, negative, or no numbers.
        """
        sigmas = _decreasing(sigmas)
        return cls(sigmas, _exploding, _along(sigmas))

    @classmethod
    def flow(cls, sigmas: Iterable[float]) -> "Schedule":
        """``x = (1 - sigma) * x0 + sigma * n``: rectified flow and flow matching.

        Args:
            sigmas: the noise levels of the steps as for ``edm``, from 1 at most.

        Raises:
            ValueError: ``sigmas`` are refused by ``edm``, or one is above 1.
        """
        sigmas = _decreasing(sigmas, most=1.0)
        return cls(sigmas, _straight, _along(sigmas))

    @classmethod
    def variance_preserving(cls, alphas_cumprod: Iterable[float]) -> "Schedule":
        """``x = sqrt(a) * x0 + sqrt(1 - a) * n``, ``a`` the cumulative product of DDPM's alphas.

        Sigma is the ratio of the two, ``sqrt((1 - a) / a)``: that of ``edm``, and ``x`` smaller by
        ``sqrt(a)``.

        Args:
            alphas_cumprod: ``a`` at each of the steps, increasing, all in (0, 1]; the last one is
                that of the result, 1 for a picture without noise.

        Raises:
            ValueError: ``alphas_cumprod`` are less than two, not increasing, or outside (0, 1].
        """
        products = [float(a) for a in alphas_cumprod]
        wrong = [a for a in products if not 0.0 < a <= 1.0]
        if wrong:
            raise ValueError(
                f"alphas_cumprod must lie in (0, 1], got {wrong[0]:g}; at 0 there is nothing but "
                "noise: begin at a small number such as 2**-24"
            )
        sigmas = _decreasing(((1.0 - a) / a) ** 0.5 for a in products)
        return cls(sigmas, _preserving, _along(sigmas))


def part_between(
    first: float, last: float, sigma_at: Callable[[float], float], *, goes_on: bool
) -> tuple[float, float]:
    """The part of a whole sampling that leads from one sigma to another; see ``Schedule``.

    It is exact where the steps of the whole are spread evenly over fractions of the sampling.

    Args:
        first, last: where the part begins and ends; at 0 the whole ends, too.
        sigma_at: takes a fraction of the sampling to its sigma, not increasing.
        goes_on: whether this one goes on with what an earlier part made; else the whole begins
            here, be it in the middle of the noise levels.
    """
    if last >= first:
        return WHOLE
    begun = _fraction_of(first, sigma_at)
    end = 1.0 if last <= 0.0 else _fraction_of(last, sigma_at)
    if goes_on and begun > LEAST_PART:
        return begun, end
    return 0.0, (end - begun) / max(1.0 - begun, EXACT)


def _fraction_of(sigma: float, sigma_at: Callable[[float], float]) -> float:
    """The fraction of the sampling at which it has come down to ``sigma``."""
    low, high = WHOLE
    for _ in range(32):
        middle = (low + high) / 2.0
        low, high = (middle, high) if sigma_at(middle) > sigma else (low, middle)
    return high


def _exploding(sigma: float) -> NoiseLevel:
    return NoiseLevel(1.0, sigma)


def _straight(sigma: float) -> NoiseLevel:
    return NoiseLevel(1.0 - sigma, sigma)


def _preserving(sigma: float) -> NoiseLevel:
    length = math.hypot(1.0, sigma)
    return NoiseLevel(1.0 / length, sigma / length)


def _along(sigmas: tuple[float, ...]) -> Callable[[float], float]:
    """Fractions of the sampling by its steps; between two steps sigma is interpolated."""

    def sigma_at(fraction: float) -> float:
        place = min(max(fraction, 0.0), 1.0) * (len(sigmas) - 1)
        before = min(int(place), len(sigmas) - 2)
        share = place - before
        return (1.0 - share) * sigmas[before] + share * sigmas[before + 1]

    return sigma_at


def _decreasing(sigmas: Iterable[float], most: float = math.inf) -> tuple[float, ...]:
    levels = tuple(float(sigma) for sigma in sigmas)
    if len(levels) < 2:
        raise ValueError(
            f"a schedule needs the noise level of a step and that of its end, got {len(levels)}"
        )
    wrong = [sigma for sigma in levels if not (0.0 <= sigma <= most and math.isfinite(sigma))]
    if wrong:
        raise ValueError(f"noise levels must be numbers from 0 to {most:g}, got {wrong[0]:g}")
    for before, after in itertools.pairwise(levels):
        if not before > after:
            raise ValueError(
                f"noise levels must decrease from step to step, got {after:g} after {before:g}"
            )
    return levels
