"""First and second derivatives of the host's architectures, against difference quotients."""

import comfy.taesd.taesd
import pytest
import torch

from zmagic.host.gradients import differentiable, normal

from . import architectures
from .derivatives import gradient_error, hessian_error, one_thread, relative, sample


@pytest.mark.parametrize("name", architectures.DIFFUSION)
def test_denoiser_through_sampler_and_cfg(name):
    with torch.inference_mode():
        specimen = architectures.DIFFUSION[name]()
    assert all(weight.is_inference() for weight in specimen.patcher.model.parameters())

    def probe(evaluation):
        with evaluation.differentiable():
            value = evaluation.denoise(normal(evaluation.x).requires_grad_())
        assert value.requires_grad
        return (
            relative(value.detach(), evaluation.plain()),
            evaluation.gradient_error(),
            evaluation.hessian_error(),
        )

    _, errors = sample(specimen, probe)
    print(f"\n{name:16s} value {errors[0]:.1e}  gradient {errors[1]:.1e}  hessian {errors[2]:.1e}")
    assert errors[0] < 1e-5  # the host's fused kernels round differently from its formulas
    assert errors[1] < 1e-3
    assert errors[2] < 2e-3


def _module(build):
    """A module of the host's, a function of one tensor on it, and a point."""
    with torch.inference_mode():
        model = build()
        if build is architectures.clip_vision:
            return model, lambda x: model(x)[2], torch.rand(1, 3, 32, 32)
        if build is architectures.wan_vae:
            return model, model.decode, torch.randn(1, 4, 3, 4, 4)
        module = model.first_stage_model
        return module, module.decode, torch.randn(1, 4, 4, 4)


@pytest.mark.parametrize("name", ["kl_vae", "wan_vae", "clip_vision"])
def test_decoders_and_encoders(name):
    module, f, x = _module(getattr(architectures, name))
    with torch.inference_mode(), one_thread():
        cotangent = torch.randn_like(f(x))
        direction = torch.randn_like(x)

        def plain_energy(x):
            return (f(x) * cotangent).sum()

        def gradient(x, direction=None):
            second_order = direction is not None
            with differentiable(None, [module], second_order=second_order):
                x = normal(x).requires_grad_()
                energy = (f(x) * normal(cotangent)).sum()
                (g,) = torch.autograd.grad(energy, x, create_graph=second_order)
                if not second_order:
                    return g
                return torch.autograd.grad((g * normal(direction)).sum(), x)[0]

        first = gradient_error(plain_energy, x, gradient(x))
        second = hessian_error(gradient, x, direction, gradient(x, direction))
    print(f"\n{name:16s} gradient {first:.1e}  hessian {second:.1e}")
    assert first < 1e-3
    assert second < 2e-3


def test_taesd_against_ordinary_autograd():
    """TAESD is piecewise linear: difference quotients cross kinks, so autograd is the reference."""
    module, decode, x = _module(architectures.taesd)
    reference = comfy.taesd.taesd.TAESD(latent_channels=4)
    weights = {name: normal(weight) for name, weight in module.state_dict().items()}
    reference.load_state_dict(weights)

    def derivatives(decode):
        z = normal(x).requires_grad_()
        (g,) = torch.autograd.grad(decode(z).pow(2).sum(), z, create_graph=True)
        return g.detach(), torch.autograd.grad(g.pow(2).sum(), z)[0]

    expected = derivatives(reference.decode)
    with torch.inference_mode(), differentiable(None, [module], second_order=True):
        found = derivatives(decode)
    assert relative(found[0], expected[0]) < 1e-5
    assert relative(found[1], expected[1]) < 1e-5
