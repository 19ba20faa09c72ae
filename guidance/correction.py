"""The correction of a prediction: a step in x, and steps on the prediction itself (section 6)."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from .direction import Direction
from .settings import GuidanceSettings
from .steps import StepState, step

__all__ = ["corrected"]


def corrected(
    state: StepState,
    settings: GuidanceSettings,
    behind: bool,
    look_at: Callable[[Tensor], Direction],
) -> Tensor:
    """``D'``: variance guidance and mean guidance (TFG, arXiv 2409.15761, algorithm 1).

    Variance guidance is one step along the direction that came through the denoiser (FreeDoM's,
    the forward guidance of arXiv 2302.07121, equation 6). Mean guidance descends from D itself,
    without the denoiser (its backward guidance, equations 7 to 9). Both are added, and the lengths
    of all steps are those of one step at the whole strength.

    Args:
        state: D and the direction of its look.
        settings: the settings of the run.
        behind: whether that direction came without the denoiser's Jacobian: then it is that of the
            first step of mean guidance, and there is no other guidance.
        look_at: takes a prediction to the direction there, without the denoiser's Jacobian.
    """
    share = 1.0 if behind else settings.mean_share
    each = settings.strength * share / settings.mean_steps
    moved = step(
        state,
        settings.step_rule,
        each if behind else settings.strength * (1.0 - settings.mean_share),
    )
    left = settings.mean_steps - behind if share else 0
    if not left:
        return moved
    start = mean = moved if behind else state.prediction
    for _ in range(left):
        made = look_at(mean)
        there = replace(state, prediction=mean, direction=made.direction, merit=made.merit)
        mean = step(there, settings.step_rule, each)
    return moved + (mean - start)
