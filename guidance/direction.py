"""The balanced direction of one evaluation: energies, pair gradients, balance.

Whatever the path, the row of stages from the noisy latent to the image is cut once: the pairs are
taken behind the cut, and one vector-Jacobian product brings their balance back to x.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .balance import balance
from .conditions import Condition
from .denoiser import Denoise
from .dependence import ConditionGradients, Tasks, condition_gradients, dependent_tasks
from .evaluation import DENOISER, Count, EnergyField, Meter, Stage, Tape
from .jacobian_check import PullBack
from .neighborhood import decoded_neighbors
from .norms import inner_products
from .satisfaction import satisfied
from .schedule import NoiseLevel
from .settings import NO_BACKPROP, GuidanceSettings
from .trace import cosines, cosines_of, rounded
from .transfers import fetched, made_at
from .unseen import due_looks, seen_alone

__all__ = ["Decode", "Direction", "Look", "balanced_direction"]

# Stages before the cut of each gradient path: what the pairs are differentiated through lies
# behind the cut, what one vector-Jacobian product serves lies before it (method section 4).
CUTS = {"full": 0, "prediction": 1, "no_backprop": 1, "image": 2, "image_no_backprop": 2}
# Typical spread of the variable behind the cut: ComfyUI's latents have about unit variance,
# an image in [0, 1] has about a quarter of that.
LATENT_SPREAD, IMAGE_SPREAD = 1.0, 0.25

Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Look:
    """One evaluation to be made: at which point, of which conditions, and who counts it.

    ``prediction`` is the denoiser's at ``x`` where it is not to be differentiated, else None.
    ``neighbors``, tensors like x, are added to the prediction before it is decoded: its energies
    are those of that neighborhood. Empty: its own.
    """

    x: Tensor
    level: NoiseLevel
    active: tuple[Condition, ...]
    shifts: list[tuple[int, int]]
    meter: Meter
    prediction: Tensor | None = None
    neighbors: tuple[Tensor, ...] = ()

    def at(self, prediction: Tensor) -> "Look":
        """The same look at another prediction, which is not to be differentiated."""
        return replace(self, prediction=prediction)


@dataclass(frozen=True)
class Direction:
    """The result of one evaluation: the direction in x, and how it was made.

    ``pulled`` is a product through the denoiser at x, None on a path without its Jacobian.
    """

    direction: Tensor
    prediction: Tensor
    merit: Tensor
    own: ConditionGradients
    pulled: PullBack | None
    record: dict


def balanced_direction(
    look: Look,
    denoise: Denoise,
    decode: Decode,
    settings: GuidanceSettings,
    path: str,
    evaluations: Count = 1,
) -> Direction:
    """Evaluate the balanced direction in x.

    Args:
        look: the point x, its noise level, and the conditions to evaluate.
        denoise: ``x -> D(x)``; decode: predicted latent to image ``[B, 3, H, W]``.
        settings: the settings of the run.
        path: the gradient path of this evaluation, which may be another one than the run's. One
            without the denoiser's Jacobian starts at ``look.prediction``.
        evaluations: how many of the model the last call of ``denoise`` was.

    Raises:
        NotDifferentiable: the denoiser or the decoder has no gradient.
    """
    x, active, meter = look.x, look.active, look.meter
    stages = [Stage(DENOISER, denoise, evaluations), _decoder(look, decode)]
    cut = CUTS[path]
    start, prediction = x, look.prediction
    if path in NO_BACKPROP:  # the prediction takes the place of x
        assert prediction is not None
        start, stages, cut = prediction, stages[1:], cut - 1
    names = tuple(condition.name for condition in active)
    # The first look of an evaluation may do what the later ones rely on, such as find a face.
    first = (meter.energy_calls == 0, *due_looks(active, len(x)))
    with meter.piece("look", path, names, first):
        before = Tape(stages[:cut], start, meter)
        field = EnergyField(
            stages[cut:],
            active,
            meter,
            shifts=look.shifts,
            second_order=settings.second_order,
        )
        point = field.at(before.output)
    if prediction is None:
        prediction = (before.outputs + point.tape.outputs[1:])[1].detach()
    energies = [point.energies[j].detach() for j in range(len(active))]
    done = satisfied(active, energies)
    kept = [j for j in range(len(active)) if not done[j].all()]
    record: dict[str, Any] = {
        "energies": seen_alone(active, energies),
        "satisfied": done.tolist() if done.any() else [],
    }
    if not kept:
        return _nothing_to_gain(before, prediction, active, record)
    # What is left to do follows from what it is to be done for.
    with meter.piece("tasks", path, tuple(names[j] for j in kept)):
        if len(kept) < len(active):
            point = point.only(kept)
        own = condition_gradients(point, [active[j].weight for j in kept], done[kept])
        tasks = dependent_tasks(
            point.field,
            point,
            own,
            dependence=settings.dependence,
            tasks=settings.tasks,
            order=settings.order,
            look_ahead=_look_ahead(settings.look_ahead, path, look.level),
        )
        pulled = point.tape.pulled
        own = own.spread(kept, len(active), before.output) if len(kept) < len(active) else own
        del point
        direction, weights, products = _combine(tasks, settings)
        direction = before.pull_back(direction, last=True)
        between = cosines([g.detach() for g in own.vectors])
    merits = own.scales * torch.stack(energies).to(own.scales)
    merit = torch.where(own.valid, merits, 0.0).sum(0)
    ranks = torch.zeros_like(own.scales, dtype=torch.long)
    for rank, j in zip(tasks.ranks, kept, strict=True):
        ranks[j] = rank
    record |= {
        "cosines": between,
        "task_cosines": _task_cosines(products, len(active), settings),
        "balance": rounded(weights),
        "order": ranks.T,
    }
    pulled = before.pulled or pulled
    return Direction(direction.detach(), prediction, merit, own, pulled, record)


def _decoder(look: Look, decode: Decode) -> Stage:
    if not look.neighbors:
        return Stage("decoder", decode)
    return Stage("decoder", decoded_neighbors(decode, look.neighbors), len(look.neighbors))


def _nothing_to_gain(
    before: Tape, prediction: Tensor, active: Sequence[Condition], record: dict
) -> Direction:
    """No direction, without a backward: all conditions are satisfied in all pictures."""
    own = ConditionGradients([], *torch.zeros(2, 0)).spread([], len(active), before.output)
    start = before.outputs[0].detach()
    no_merit = torch.zeros_like(own.scales[0])
    return Direction(torch.zeros_like(start), prediction, no_merit, own, None, record)


def _combine(tasks: Tasks, settings: GuidanceSettings) -> tuple[Tensor, Tensor, Tensor]:
    """The balanced direction, like u, the weights ``[B, T]`` of the tasks, and their products."""
    stacked = torch.stack(tasks.vectors, dim=1)  # [B, T, ...]
    finite = torch.isfinite(stacked).flatten(2).all(2)
    stacked = torch.nan_to_num(stacked, 0.0, 0.0, 0.0)  # 0 * NaN would not be 0
    # The one wait of a look for its device.
    products, valid = fetched([inner_products(stacked), tasks.valid & finite])
    weights = balance(products.double(), valid, settings.balance, settings.cagrad_c)
    return torch.einsum("bt,bt...->b...", made_at(weights, stacked), stacked), weights, products


def _task_cosines(
    products: Tensor, conditions: int, settings: GuidanceSettings
) -> list[list[list[float]]]:
    """Cosines ``[B, n, n]`` of the tasks, by their products; empty if a condition has not one."""
    one_each = settings.tasks == "rows" and products.shape[1] == conditions
    return rounded(cosines_of(products)) if one_each else []


def _look_ahead(kappa: float, path: str, level: NoiseLevel) -> float:
    """``k = kappa * s`` in x (method section 2); on the other paths the same share of the
    posterior spread, times the typical spread of the variable (section 4)."""
    if path == "full":
        return kappa * level.s
    spread = LATENT_SPREAD if CUTS[path] == 1 else IMAGE_SPREAD
    return kappa * spread * level.posterior_spread
