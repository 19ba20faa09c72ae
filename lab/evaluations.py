"""How often guidance runs what in a picture: the engine itself, on functions that count."""

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zmagic.guidance.conditions import Condition
from zmagic.guidance.engine import GuidedRun
from zmagic.guidance.evaluation import DENOISER
from zmagic.guidance.schedule import Schedule
from zmagic.guidance.settings import GuidanceSettings
from zmagic.guidance.trace import Trace

__all__ = ["DECODER", "STEPS", "Evaluations", "evaluations"]

DECODER = "decoder"
STEPS = 20
# A forward or a backward of a part: the denoiser, the decoder, or a condition by its number.
Run = tuple[str | int, str]


@dataclass(frozen=True)
class Evaluations:
    """Forwards and backwards of each part: ``(part, "forward" or "backward")`` to their number.

    Args:
        steps: those of each sampler step; what a run does once is no part of them.
        picture: those of all steps and of the energies of the finished picture.
        trace: the engine's own record of the picture.
    """

    steps: tuple[Counter[Run], ...]
    picture: Counter[Run]
    trace: Trace

    @property
    def step(self) -> Counter[Run]:
        """The forwards and backwards of each part in the dearest sampler step."""
        return max(self.steps, key=Counter.total)


def evaluations(
    settings: GuidanceSettings,
    conditions: int,
    steps: int = STEPS,
    schedule: Schedule | None = None,
) -> Evaluations:
    """Run the engine on one tiny picture, as the host runs it.

    Args:
        settings: how to guide.
        conditions: how many conditions guide.
        steps: sampler steps of the picture.
        schedule: its noise levels, down to 0; None: evenly spaced ones.

    Raises:
        ValueError: the settings ask for a double backward, which is not counted.
    """
    if settings.second_order:
        raise ValueError("a double backward is not counted: choose another dependence than exact")
    counts: Counter[Run] = Counter()
    schedule = schedule or Schedule.edm(torch.linspace(10.0, 0.0, steps + 1))
    run = GuidedRun(
        [Condition(str(j), _energy(j, counts)) for j in range(conditions)],
        settings,
        decode=_counted(DECODER, lambda z: z[:, :3] + 0.1 * z[:, 1:], counts),
        schedule=schedule,
        check_slope=True,
    )
    # Straight, so that one check of its slope will do, as with a real denoiser.
    denoise = _counted(DENOISER, lambda x: 0.1 * x, counts)
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    made = []
    for sigma, lower in itertools.pairwise(schedule.sigmas):
        before = counts.copy()
        prediction = run.predict(x, sigma, denoise)
        made.append(counts - before)
        x = prediction + lower / sigma * (x - prediction)  # euler
    trace = run.finish(x)
    made[0][DENOISER, "forward"] -= trace.extra_forwards.get(f"{DENOISER} check", 0)
    return Evaluations(tuple(made), counts, trace)


def _energy(number: int, counts: Counter[Run]) -> Callable:
    target = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(number + 1))
    network = _counted(number, torch.sin, counts)

    def energy(image: Tensor, region: Tensor | None = None) -> Tensor:
        return (network(image) - target).square().flatten(1).mean(1)

    return energy


def _counted(part: str | int, function: Callable, counts: Counter[Run]) -> Callable:
    """``function``, whose forwards and backwards are counted when they happen."""

    class Passing(torch.autograd.Function):
        """Passes its input on unchanged, and counts both directions."""

        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            counts[part, "forward"] += 1
            return x.clone()

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:
            counts[part, "backward"] += 1
            return gradient

    return lambda x: function(Passing.apply(x))
