"""Energies as functions of one variable, and their gradients: the evaluations a step is made of.

The way from the noisy latent to the energies is a row of stages (denoiser, decoder). A gradient
path of method section 4 is a cut through that row: the pair gradients are taken behind the cut,
and one vector-Jacobian product brings the result back through the stages before it.
"""

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .conditions import Condition, region_at
from .denoiser_gradient import is_out_of_memory
from .errors import named
from .jacobian_check import PullBack
from .neighborhood import smoothed
from .norms import expand_like, peak
from .operations import BACKWARD, FORWARD, OperationCounter, RunCost
from .progress import nothing
from .wording import one_line

__all__ = [
    "DENOISER",
    "ERRORS",
    "Count",
    "EnergyField",
    "Evaluation",
    "Meter",
    "NotDifferentiable",
    "Stage",
    "Tape",
]

log = logging.getLogger(__name__)

DENOISER = "denoiser"

# A number, or what tells it when the work that is counted is done.
Count = int | Callable[[], int]
# What code that cannot be differentiated raises. ComfyUI's interruption is none of them.
ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def counted(calls: Count) -> int:
    """The number itself."""
    return calls if isinstance(calls, int) else calls()


class NotDifferentiable(RuntimeError):
    """A stage has no gradient: its result came without one, or it failed with one.

    Args:
        stage: the name of the stage.
        cause: what went wrong with gradients; None if the result came without one (cached or
            detached by other code).
    """

    def __init__(self, stage: str, cause: str | None = None):
        super().__init__(cause or f"the {stage} returned a result without a gradient")
        self.stage, self.cause = stage, cause


@dataclass(frozen=True)
class Stage:
    """One differentiable function on the way from latent to image, with its name in reports.

    ``calls`` is how many evaluations of what the name says its last call was.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    calls: Count = 1


@dataclass
class Meter:
    """Counts evaluations: forwards and backwards per stage, and energy calls.

    ``reused`` are those forwards of the denoiser that a cache of other code answered. ``before`` is
    called in front of every piece of work; what it raises ends the evaluation. ``cost`` learns what
    the pieces take in operations, None: nobody does.
    """

    forwards: Counter = field(default_factory=Counter)
    backwards: Counter = field(default_factory=Counter)
    energy_calls: int = 0
    reused: int = 0
    before: Callable[[], None] = nothing
    cost: RunCost | None = None
    _operations: OperationCounter | None = field(default=None, init=False)

    @contextmanager
    def piece(self, *kind: Hashable, times: int = 1) -> Iterator[None]:
        """Work of a kind that always takes the same operations; see ``RunCost.piece``."""
        if self.cost is None:
            yield
            return
        with self.cost.piece(*kind, times=times) as self._operations:
            try:
                yield
            finally:
                self._operations = None

    @contextmanager
    def running(self, stage: str, direction: str, calls: Count = 1) -> Iterator[None]:
        """Count what runs inside as forwards or backwards of that stage."""
        self.before()
        counts = self.forwards if direction == FORWARD else self.backwards
        counter = self._operations
        try:
            with nullcontext() if counter is None else counter.part(stage, direction):
                yield
        finally:
            number = counted(calls)
            counts[stage] += number
            if counter is not None:
                counter.runs[stage, direction] += number

    def computed(self) -> dict[str, int]:
        """The forwards by stage, those of the denoiser that a cache answered apart."""
        if not self.reused:
            return dict(self.forwards)
        computed = self.forwards[DENOISER] - self.reused
        return {**self.forwards, DENOISER: computed, f"{DENOISER} reused": self.reused}


class Tape:
    """The outputs of a row of stages at one point, with the graph between them.

    ``outputs[0]`` is the point itself and ``outputs[k]`` what stage k made of it.
    """

    def __init__(self, stages: Sequence[Stage], start: Tensor, meter: Meter, track: bool = True):
        """Evaluate the stages.

        Raises:
            NotDifferentiable: a stage loses the gradient, or the denoiser fails with gradients.
        """
        self.stages = stages
        self.meter = meter
        self.pulled: PullBack | None = None  # the last product through the denoiser
        start = start.detach()
        self.outputs = [start.clone().requires_grad_(True) if track else start]
        with torch.set_grad_enabled(track):
            for stage in stages:
                with _failures(stage, track), meter.running(stage.name, FORWARD, stage.calls):
                    output = stage.function(self.outputs[-1])
                if track and not output.requires_grad:
                    raise NotDifferentiable(stage.name)
                self.outputs.append(output)

    @property
    def output(self) -> Tensor:
        return self.outputs[-1]

    def pull_back(
        self, cotangent: Tensor, create_graph: bool = False, last: bool = False
    ) -> Tensor:
        """Vector-Jacobian product of all stages: a cotangent of the output to one of the start.

        ``last`` frees what was saved for it: other code may still hold a tensor of the graph.

        The cotangent is scaled to magnitude 1 before each stage and back afterwards, so that a
        half-precision backward neither underflows nor overflows, whatever the energy's size.
        """
        for k in range(len(self.stages), 0, -1):
            stage = self.stages[k - 1]
            scale = expand_like(peak(cotangent.detach()), cotangent)
            with _failures(stage), self.meter.running(stage.name, BACKWARD, stage.calls):
                (pulled,) = torch.autograd.grad(
                    self.outputs[k],
                    self.outputs[k - 1],
                    (cotangent / scale).to(self.outputs[k]),
                    retain_graph=not last,
                    create_graph=create_graph,
                )
            pulled = pulled * expand_like(scale, pulled)
            if stage.name == DENOISER:
                ends = (self.outputs[k - 1], self.outputs[k], cotangent, pulled)
                self.pulled = PullBack(*(tensor.detach() for tensor in ends))
            cotangent = pulled
        return cotangent


@contextmanager
def _failures(stage: Stage, track: bool = True) -> Iterator[None]:
    """An error of the denoiser with gradients becomes NotDifferentiable; others pass.

    Lack of memory passes, too: it says nothing about gradients.

    The error itself is not kept: its traceback would hold the memory of the failed pass.
    """
    try:
        yield
    except ERRORS as error:
        if stage.name != DENOISER or not track or isinstance(error, NotDifferentiable):
            raise
        if is_out_of_memory(error):
            raise
        log.debug("the denoiser failed with gradients", exc_info=True)
        cause = f"{type(error).__name__}: {one_line(error)}"
    else:
        return
    raise NotDifferentiable(stage.name, cause)


class EnergyField:
    """Energies of several conditions as functions of the variable behind the cut."""

    def __init__(
        self,
        stages: Sequence[Stage],
        conditions: Sequence[Condition],
        meter: Meter,
        *,
        shifts: Sequence[tuple[int, int]] = (),
        second_order: bool = False,
    ):
        """
        Args:
            stages: the stages from the variable to the image ``[B, 3, H, W]``; empty if the
                variable is the image.
            conditions: the n conditions whose energies are evaluated.
            shifts: a circular shift (rows, columns) of each picture before the energies see it;
                empty: none.
            second_order: whether gradients will be differentiated again.
        """
        self.stages = stages
        self.conditions = conditions
        self.meter = meter
        self.shifts = shifts
        self.second_order = second_order

    def at(self, u: Tensor, which: Sequence[int] | None = None) -> "Evaluation":
        """Evaluate the energies ``which`` (default all) at ``u``."""
        tape = Tape(self.stages, u, self.meter)
        image = self.shifted(tape.output)
        which = range(len(self.conditions)) if which is None else which
        return Evaluation(self, tape, {j: self.energy(j, image) for j in which})

    def only(self, which: Sequence[int]) -> "EnergyField":
        """The same field of the conditions ``which`` alone, numbered anew."""
        kept = [self.conditions[j] for j in which]
        return EnergyField(
            self.stages,
            kept,
            self.meter,
            shifts=self.shifts,
            second_order=self.second_order,
        )

    def shifted(self, image: Tensor) -> Tensor:
        """The pictures as the energies see them."""
        if not self.shifts:
            return image
        pairs = zip(image, self.shifts, strict=True)
        return torch.stack([torch.roll(one, shift, (-2, -1)) for one, shift in pairs])

    def energy(self, j: int, image: Tensor) -> Tensor:
        """Energy of condition j on ``image [B, 3, H, W]``, ``[B]``.

        Of ``[B, K, 3, H, W]``, images of a neighborhood, it is the smoothed one.

        Raises:
            ValueError: what the energy or its region raise, or its result is not one value per
                image; the sentence starts with the condition's name.
        """
        if image.ndim == 5:
            return smoothed(torch.stack([self.energy(j, one) for one in image.unbind(1)]))
        self.meter.before()
        condition = self.conditions[j]
        self.meter.energy_calls += getattr(condition.energy, "calls", 1)
        with named(condition.name):
            energy = condition.energy(image, region_at(condition, image))
            if energy.shape != image.shape[:1]:
                raise ValueError(
                    f"the energy must return one value per image, [{image.shape[0]}], got "
                    f"{list(energy.shape)}"
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

    def only(self, which: Sequence[int]) -> "Evaluation":
        """The energies ``which`` of the same point, numbered anew."""
        energies = {new: self.energies[j] for new, j in enumerate(which)}
        return Evaluation(self.field.only(which), self.tape, energies)

    def gradient(self, scales: dict[int, Tensor]) -> Tensor:
        """``d/du sum_j scales[j] * E_j``, like u; ``scales[j]`` is ``[B]``.

        A scale of 0 switches a condition off in that picture, whatever its energy is there: a NaN,
        too. The stages take one backward, whatever the number of conditions.
        """
        found = [self._image_gradient(j, scale) for j, scale in scales.items()]
        gradients = [gradient for gradient in found if gradient is not None]
        if not gradients:
            return torch.zeros_like(self.u)
        total = torch.stack(gradients).sum(0) if len(gradients) > 1 else gradients[0]
        return self.tape.pull_back(total, create_graph=self.field.second_order)

    def _image_gradient(self, j: int, scale: Tensor) -> Tensor | None:
        """``scale * dE_j/d image``, 0 where the scale is 0; None if the energy has no gradient."""
        image, energy = self.tape.output, self.energies[j]
        if not energy.requires_grad:
            return None
        self.field.meter.before()
        (gradient,) = torch.autograd.grad(
            energy,
            image,
            scale.to(energy),
            retain_graph=True,
            create_graph=self.field.second_order,
            allow_unused=True,
        )
        if gradient is None:
            return None
        return torch.where(expand_like(scale, gradient) != 0.0, gradient, 0.0)

    def hessian_product(self, gradient: Tensor, v: Tensor) -> Tensor:
        """``H v`` with ``H`` the Jacobian of ``gradient`` (made at this point, second_order)."""
        if not gradient.requires_grad:
            return torch.zeros_like(v)
        for stage in self.tape.stages:  # through the stage's forward and its backward graph
            self.field.meter.backwards[stage.name] += 2 * counted(stage.calls)
        with ExitStack() as stack:
            for stage in self.tape.stages[:1]:  # the denoiser, if the pairs lie in front of it
                stack.enter_context(_failures(stage))
            (product,) = torch.autograd.grad(
                gradient, self.u, v.to(gradient), retain_graph=True, allow_unused=True
            )
        return torch.zeros_like(v) if product is None else product

    def release(self) -> None:
        """Drop the graph, keep the values."""
        self.tape.outputs = [output.detach() for output in self.tape.outputs]
        self.energies = {j: energy.detach() for j, energy in self.energies.items()}
