"""Energies as functions of one variable, and their gradients: the evaluations a step is made of.

The way from the noisy latent to the energies is a row of stages (denoiser, decoder). A gradient
path of method section 4 is a cut through that row: the pair gradients are taken behind the cut,
and one vector-Jacobian product brings the result back through the stages before it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .conditions import Condition, region_at
from .norms import expand_like, peak

__all__ = ["EnergyField", "Evaluation", "Meter", "NotDifferentiable", "Stage", "Tape"]


class NotDifferentiable(RuntimeError):
    """A stage returned a tensor without a gradient (cached or detached by other code)."""

    def __init__(self, stage: str):
        super().__init__(f"the {stage} returned a result without a gradient")
        self.stage = stage


@dataclass(frozen=True)
class Stage:
    """One differentiable function on the way from latent to image, with its name in reports."""

    name: str
    function: Callable[[Tensor], Tensor]


@dataclass
class Meter:
    """Counts evaluations: forwards and backwards per stage, and energy calls."""

    forwards: Counter = field(default_factory=Counter)
    backwards: Counter = field(default_factory=Counter)
    energy_calls: int = 0


class Tape:
    """The outputs of a row of stages at one point, with the graph between them.

    ``outputs[0]`` is the point itself and ``outputs[k]`` what stage k made of it.
    """

    def __init__(self, stages: Sequence[Stage], start: Tensor, meter: Meter, track: bool = True):
        """Evaluate the stages. Raises NotDifferentiable when one loses the gradient."""
        self.stages = stages
        self.meter = meter
        start = start.detach()
        self.outputs = [start.clone().requires_grad_(True) if track else start]
        with torch.set_grad_enabled(track):
            for stage in stages:
                meter.forwards[stage.name] += 1
                output = stage.function(self.outputs[-1])
                if track and not output.requires_grad:
                    raise NotDifferentiable(stage.name)
                self.outputs.append(output)

    @property
    def output(self) -> Tensor:
        return self.outputs[-1]

    def pull_back(self, cotangent: Tensor, create_graph: bool = False) -> Tensor:
        """Vector-Jacobian product of all stages: a cotangent of the output to one of the start.

        The cotangent is scaled to magnitude 1 before each stage and back afterwards, so that a
        half-precision backward neither underflows nor overflows, whatever the energy's size.
        """
        for k in range(len(self.stages), 0, -1):
            self.meter.backwards[self.stages[k - 1].name] += 1
            scale = expand_like(peak(cotangent.detach()), cotangent)
            (pulled,) = torch.autograd.grad(
                self.outputs[k],
                self.outputs[k - 1],
                (cotangent / scale).to(self.outputs[k]),
                retain_graph=True,
                create_graph=create_graph,
            )
            cotangent = pulled * expand_like(scale, pulled)
        return cotangent


class EnergyField:
    """Energies of several conditions as functions of the variable behind the cut."""

    def __init__(
        self,
        stages: Sequence[Stage],
        conditions: Sequence[Condition],
        meter: Meter,
        *,
        shift: tuple[int, int] = (0, 0),
        second_order: bool = False,
    ):
        """
        Args:
            stages: from the variable to the image ``[B, 3, H, W]``; empty if it is the image.
            conditions: the n conditions.
            shift: circular shift (rows, columns) of the image before the energies.
            second_order: gradients will be differentiated again.
        """
        self.stages = stages
        self.conditions = conditions
        self.meter = meter
        self.shift = shift
        self.second_order = second_order

    def at(self, u: Tensor, which: Sequence[int] | None = None) -> "Evaluation":
        """Evaluate the energies ``which`` (default all) at ``u``."""
        tape = Tape(self.stages, u, self.meter)
        image = tape.output
        if self.shift != (0, 0):
            image = torch.roll(image, self.shift, (-2, -1))
        which = range(len(self.conditions)) if which is None else which
        return Evaluation(self, tape, {j: self.energy(j, image) for j in which})

    def energy(self, j: int, image: Tensor) -> Tensor:
        """Energy of condition j on ``image [B, 3, H, W]``, ``[B]``.

        Raises:
            ValueError: the energy's result is not one value per image.
        """
        self.meter.energy_calls += 1
        condition = self.conditions[j]
        energy = condition.energy(image, region_at(condition, image))
        if energy.shape != image.shape[:1]:
            raise ValueError(
                f"{condition.name}: the energy must return one value per image, "
                f"[{image.shape[0]}], got {list(energy.shape)}"
            )
        return energy


@dataclass
class Evaluation:
    """Energies ``{j: [B]}`` at one point, with the graph that gradients are taken from."""

    field: EnergyField
    tape: Tape
    energies: dict[int, Tensor]

    @property
    def u(self) -> Tensor:
        return self.tape.outputs[0]

    def gradient(self, scales: dict[int, Tensor]) -> Tensor:
        """``d/du sum_j scales[j] * E_j``, like u, by one backward; ``scales[j]`` is ``[B]``."""
        graph = self.field.second_order
        # A scale of 0 switches a condition off: its energy may be NaN, and 0 * NaN is not 0.
        live = [j for j in scales if self.energies[j].requires_grad and scales[j].any()]
        if not live:
            return torch.zeros_like(self.u)
        total = sum((scales[j].to(self.energies[j]) * self.energies[j]).sum() for j in live)
        (cotangent,) = torch.autograd.grad(
            total,
            self.tape.output,
            retain_graph=True,
            create_graph=graph,
            allow_unused=True,
        )
        if cotangent is None:
            return torch.zeros_like(self.u)
        return self.tape.pull_back(cotangent, create_graph=graph)

    def hessian_product(self, gradient: Tensor, v: Tensor) -> Tensor:
        """``H v`` with ``H`` the Jacobian of ``gradient`` (made at this point, second_order)."""
        if not gradient.requires_grad:
            return torch.zeros_like(v)
        for stage in self.tape.stages:  # through the stage's forward and its backward graph
            self.field.meter.backwards[stage.name] += 2
        (product,) = torch.autograd.grad(
            gradient, self.u, v.to(gradient), retain_graph=True, allow_unused=True
        )
        return torch.zeros_like(v) if product is None else product

    def release(self) -> None:
        """Drop the graph, keep the values."""
        self.tape.outputs = [output.detach() for output in self.tape.outputs]
        self.energies = {j: energy.detach() for j, energy in self.energies.items()}
