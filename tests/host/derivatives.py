"""Run a small model through the host's own sampling, and hold our derivatives against its output.

The reference is always a difference quotient of what the host computes in inference mode, without
any of our code; second derivatives are held against difference quotients of first derivatives.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import torch
from torch import Tensor

from zmagic.guidance.conditions import Condition
from zmagic.host.controls import control_networks
from zmagic.host.gradients import differentiable, differentiable_options, normal

from .architectures import Specimen

STEP = 3e-3  # of the difference quotients, in units of the point's norm


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread: on small tensors a second one costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def quotient(
    f: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor, step: float = STEP
) -> Tensor:
    """The derivative of f at x along ``direction``, by the fourth-order central difference."""
    h = step * x.norm() / direction.norm()
    near = f(x + h * direction) - f(x - h * direction)
    far = f(x + 2 * h * direction) - f(x - 2 * h * direction)
    return (8 * near - far) / (12 * h)


def relative(value: Tensor, reference: Tensor) -> float:
    return ((value - reference).norm() / reference.norm()).item()


def repeated(value: Tensor, reference: Tensor) -> bool:
    """Return whether a computation with a backward came out as before.

    On the CPU bit for bit; elsewhere to rounding, since kernels there may add up in any order.
    """
    if comfy.model_management.get_torch_device().type == "cpu":
        return torch.equal(value, reference)
    return relative(value, reference) < 1e-3


def gradient_error(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    gradient: Tensor,
    steps: tuple[float, ...] = (STEP,),
) -> float:
    """Relative error of <gradient, v>, with v between the gradient's direction and a random one.

    Functions with kinks or steep places need a smaller step than rounding likes: of several
    ``steps`` the best counts. A wrong gradient agrees with none.
    """
    random = torch.randn_like(x)
    v = gradient / gradient.norm() + random / random.norm()
    slope = (gradient * v).sum()
    return min(relative(slope, quotient(f, x, v, step)) for step in steps)


def slope_of(
    condition: Condition, image: Tensor, region: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A condition's energies ``[B]`` of ``image`` and their gradient, taken as a run takes them.

    A prompt runs in inference mode, and so does the host's move of weights to an accelerator: plain
    autograd cannot save these.
    """
    with differentiable(None, [network.module for network in condition.networks]):
        image = normal(image).requires_grad_()
        values = condition.energy(image, region)
        (slope,) = torch.autograd.grad(values.sum(), image)
    return values.detach(), slope


def hessian_error(
    gradient: Callable[[Tensor], Tensor],
    x: Tensor,
    direction: Tensor,
    product: Tensor,
    steps: tuple[float, ...] = (STEP,),
) -> float:
    """Relative error of a Hessian-vector product, against differences of ``gradient``."""
    return min(relative(product, quotient(gradient, x, direction, step)) for step in steps)


@dataclass
class Evaluation:
    """One denoiser evaluation of a run, caught inside the host's sampling loop."""

    executor: Any
    x: Tensor
    sigma: Tensor
    options: dict
    seed: int

    def __post_init__(self) -> None:
        self.guider = self.executor.class_obj
        generator = torch.Generator().manual_seed(6)
        self.cotangent = torch.randn(self.x.shape, generator=generator).to(self.x)

    def plain(self, x: Tensor | None = None) -> Tensor:
        """The denoised latent as the host computes it."""
        torch.manual_seed(7)  # some patches draw random numbers in every evaluation
        return self.executor(self.x if x is None else x, self.sigma, self.options, self.seed)

    def plain_energy(self, x: Tensor) -> Tensor:
        return (self.plain(x) * self.cotangent).sum()

    @contextmanager
    def differentiable(self, **choices: bool) -> Iterator[None]:
        models = [self.guider.inner_model, *(p.model for p in self.guider.loaded_models)]
        models += control_networks(self.guider.conds)
        with differentiable(self.guider.model_patcher, models, **choices):
            yield

    def denoise(self, x: Tensor) -> Tensor:
        """The denoised latent inside ``differentiable``."""
        options = differentiable_options(self.options)
        torch.manual_seed(7)
        return self.executor(x, normal(self.sigma), options, self.seed)

    def energy(self, x: Tensor) -> Tensor:
        return (self.denoise(x) * normal(self.cotangent)).sum()

    def gradient(self, x: Tensor, *, checkpoint: bool = False) -> Tensor:
        """The vector-Jacobian product with ``cotangent``."""
        with self.differentiable(checkpoint=checkpoint):
            x = normal(x).requires_grad_()
            return torch.autograd.grad(self.energy(x), x)[0]

    def hessian_product(self, x: Tensor, direction: Tensor) -> Tensor:
        with self.differentiable(second_order=True):
            x = normal(x).requires_grad_()
            (gradient,) = torch.autograd.grad(self.energy(x), x, create_graph=True)
            return torch.autograd.grad((gradient * normal(direction)).sum(), x)[0]

    def gradient_error(self, *steps: float) -> float:
        gradient = self.gradient(self.x)
        return gradient_error(self.plain_energy, self.x, gradient, steps or (STEP,))

    def hessian_error(self, *steps: float) -> float:
        direction = torch.randn_like(self.x)
        product = self.hessian_product(self.x, direction)
        return hessian_error(self.gradient, self.x, direction, product, steps or (STEP,))


def sample(
    specimen: Specimen,
    probe: Callable[[Evaluation], Any] | None = None,
    *,
    conds: tuple[list, list] | None = None,
    steps: int = 1,
    denoise_mask: Tensor | None = None,
) -> tuple[Tensor, Any]:
    """Two Euler evaluations through CFGGuider, in inference mode like a prompt.

    Returns:
        The sampled latent, and what ``probe`` returned for the first evaluation.
    """
    findings = []

    def wrapper(executor, x, sigma, model_options=None, seed=None):
        if probe is not None and not findings:
            findings.append(probe(Evaluation(executor, x, sigma, model_options, seed)))
        return executor(x, sigma, model_options, seed)

    with torch.inference_mode(), one_thread():
        patcher = specimen.patcher.clone()
        key = comfy.patcher_extension.WrappersMP.PREDICT_NOISE
        patcher.add_wrapper_with_key(key, "probe", wrapper)
        guider = comfy.samplers.CFGGuider(patcher)
        guider.set_conds(*(conds or (specimen.positive, specimen.negative)))
        guider.set_cfg(3.0)
        noise = torch.randn(specimen.latent.shape, generator=torch.Generator().manual_seed(5))
        result = guider.sample(
            noise,
            specimen.latent,
            comfy.samplers.sampler_object("euler"),
            torch.linspace(specimen.sigma, 0, steps + 1),
            denoise_mask=denoise_mask,
            disable_pbar=True,
            seed=5,
        )
    return result, findings[0] if findings else None
