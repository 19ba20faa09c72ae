"""Step-size rules: how far the prediction moves along the combined direction (method section 6).

Strength has one unit. Corrections that all point the same way move a picture, over a whole
sampling, by about ``strength * pi / 2`` of the spread of its latents. By ``posterior`` that holds
for every noise schedule and number of steps, by ``residual`` for the usual ones: 20 steps of the
schedule of Stable Diffusion. ``classifier``, ``freedom`` and ``polyak`` take their length from the
energies and the model; strength multiplies it. By ``spherical`` the schedule fixes the length, and
strength is a share of the direction.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .norms import expand_like, peak, rms
from .schedule import ALPHA_FLOOR, NoiseLevel

__all__ = ["PUBLISHED_UNIT", "STEP_RULES", "StepState", "renoise", "step"]

# What a published number of ``residual``, a share of all the noise that is left, is in strength.
PUBLISHED_UNIT = 0.5


@dataclass(frozen=True)
class StepState:
    """The values that a step rule is computed from.

    Args:
        x: the noisy latent ``[B, ...]``; prediction: the denoised ``D(x)``; direction: the
            combined direction ``d``; both like x.
        level: the noise model at x.
        merit: the sum of ``lambda_i * E_i``, ``[B]``, whose descent directions the tasks are.
        cfg_gap: ``cfg * (D_cond - D_uncond)``, or None when it was not computed.
        lower: the noise model that the solver goes to from here; ``spherical`` needs it.
        noise: standard normal noise like x; ``spherical`` needs it.
    """

    x: Tensor
    prediction: Tensor
    direction: Tensor
    level: NoiseLevel
    merit: Tensor
    cfg_gap: Tensor | None = None
    lower: NoiseLevel | None = None
    noise: Tensor | None = None


def residual(state: StepState) -> Tensor:
    """``RMS(D - x / alpha) / 2 * d / RMS(d)``: a share of the noise that is left.

    The share that is published (FreeDoM's, the paper's) is half of the strength.
    """
    return expand_like(_residual_length(state), state.direction) * _unit(state.direction)


def posterior(state: StepState) -> Tensor:
    """``s / sqrt(alpha^2 + s^2) * d / RMS(d)``: a share of the posterior spread.

    At little noise it is about twice as long as ``residual``, which at much noise goes far beyond
    all clean latents: their spread is about 1.
    """
    return state.level.posterior_spread * _unit(state.direction)


def classifier(state: StepState) -> Tensor:
    """``(s^2 / alpha) * d``: classifier guidance (Dhariwal and Nichol, arXiv 2105.05233)."""
    return state.level.s**2 / max(state.level.alpha, ALPHA_FLOOR) * state.direction


def freedom(state: StepState) -> Tensor:
    """``RMS(cfg * (D_cond - D_uncond)) * d / RMS(d)``: the norm rule of FreeDoM's text-to-image
    code. Without classifier-free guidance (cfg 1) there is no such norm: then ``residual``."""
    if state.cfg_gap is None:
        return residual(state)
    return expand_like(rms(state.cfg_gap), state.direction) * _unit(state.direction)


def polyak(state: StepState) -> Tensor:
    """``(merit / |d|^2) * d``: Polyak's step towards energy 0, never longer than ``residual``."""
    length = rms(state.direction)
    wanted = state.merit.clamp_min(0.0).to(length)
    wanted = wanted / (
        length.clamp_min(torch.finfo(length.dtype).tiny) * state.direction[0].numel()
    )
    longest = _residual_length(state).to(length)
    return expand_like(torch.minimum(wanted, longest), state.direction) * _unit(state.direction)


def spherical(state: StepState, strength: float) -> Tensor:
    """The spherical Gaussian constraint (DSG, Yang et al., ICML 2024, arXiv 2402.03201).

    Noise of a step is, in many dimensions, on a sphere: of DDPM's step from x, whose mean is ``m``
    and deviation ``c``, it has the radius ``sqrt(N) c``. The step shall end on that sphere, at

        m + sqrt(N) c * u / |u|,   u = (1 - strength) * c * noise + strength * sqrt(N) c * d / |d|

    What is returned takes a deterministic first-order solver there (Euler, DDIM): in units of the
    RMS all factors ``sqrt(N)`` cancel. The last step of a sampling has no noise, and no correction.
    """
    assert state.lower is not None and state.noise is not None
    lower, level = state.lower, state.level
    if lower.s == 0.0:
        return torch.zeros_like(state.prediction)
    kept = lower.s / level.s
    # The part of x's noise that DDPM keeps, and what it draws anew: ``c``.
    old = kept * level.alpha / lower.alpha * lower.s
    drawn = (lower.s**2 - old**2) ** 0.5
    blend = (1.0 - strength) * state.noise + strength * _unit(state.direction)
    noise = level.noise(state.x, state.prediction)
    moved = (old - lower.s) * noise + drawn * _unit(blend)
    return moved / (lower.alpha - kept * level.alpha)


def _residual_length(state: StepState) -> Tensor:
    return PUBLISHED_UNIT * rms(state.prediction - state.level.clean(state.x))


def _multiplied(rule: Callable[[StepState], Tensor]) -> Callable[[StepState, float], Tensor]:
    return lambda state, strength: strength * rule(state)


# From the state and the strength to the correction.
STEP_RULES: dict[str, Callable[[StepState, float], Tensor]] = {
    "residual": _multiplied(residual),
    "posterior": _multiplied(posterior),
    "classifier": _multiplied(classifier),
    "freedom": _multiplied(freedom),
    "polyak": _multiplied(polyak),
    "spherical": spherical,
}


def step(state: StepState, rule: str, strength: float) -> Tensor:
    """``D'``, D corrected by a rule; a sample without a finite direction keeps its D."""
    moved = STEP_RULES[rule](state, strength)
    finite = torch.isfinite(moved).flatten(1).all(1)
    keep = finite.view(-1, *[1] * (moved.ndim - 1))
    return torch.where(keep, state.prediction + moved, state.prediction)


def renoise(
    prediction: Tensor, noise: Tensor, level: NoiseLevel, kept: float, fresh: Tensor
) -> Tensor:
    """Time travel (FreeDoM, arXiv 2303.09833): ``prediction`` at the noise level again.

    Args:
        prediction: clean latent ``[B, ...]``.
        noise: the noise of the present noisy latent, like it.
        level: the noise level to return to.
        kept: the factor in [0, 1] by which ``noise`` is scaled to stay.
        fresh: standard normal noise, like ``noise``, that takes the rest of its variance.
    """
    noise = kept * noise + (1.0 - kept**2) ** 0.5 * fresh
    return level.alpha * prediction + level.s * noise


def _unit(direction: Tensor) -> Tensor:
    """``d / RMS(d)`` per sample; 0 where d is 0."""
    scaled = direction / expand_like(peak(direction), direction)
    return scaled / expand_like(rms(scaled).clamp_min(torch.finfo(scaled.dtype).tiny), scaled)
