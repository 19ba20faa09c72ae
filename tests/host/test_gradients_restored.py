"""Whatever ends a differentiable block, the host is afterwards as it was before."""

import argparse

import comfy.cli_args
import comfy.ldm.modules.attention as host_attention
import comfy.model_management
import pytest
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from torch._dynamo.testing import CompileCounter
from torch.overrides import _get_current_function_mode_stack

from zmagic.host.gradients import differentiable, normal

from . import architectures
from .derivatives import relative, sample

Interrupt = comfy.model_management.InterruptProcessingException
WEIGHTS = {"resident": (torch.float32, None), "cast": (torch.float16, torch.float32)}


def _state(model):
    return dict(
        grad=torch.is_grad_enabled(),
        inference=torch.is_inference_mode_enabled(),
        training=comfy.model_management.in_training,
        stance=torch._dynamo.eval_frame._stance.stance,
        modes=len(_get_current_function_mode_stack()),
        attention=(
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
        ),
        attributes=[sorted(vars(module)) for module in model.modules()],
        casts=[getattr(module, "comfy_cast_weights", None) for module in model.modules()],
    )


class _Failure(Exception):
    pass


def _fail(evaluation):
    raise _Failure


def _interrupt(*_):
    comfy.model_management.interrupt_current_processing()


def _interrupt_forward(evaluation):
    patches = {"output_block_patch": [lambda h, hsp, _: (_interrupt(), (h, hsp))[1]]}
    evaluation.options = evaluation.options | {
        "transformer_options": evaluation.options["transformer_options"] | {"patches": patches}
    }
    evaluation.gradient(evaluation.x)


def _interrupt_backward(evaluation):
    with evaluation.differentiable():
        x = normal(evaluation.x).requires_grad_()
        denoised = evaluation.denoise(x)
        denoised.register_hook(_interrupt)
        torch.autograd.grad(denoised.sum(), x)


ENDS = {
    "nothing": (lambda evaluation: None, None),
    "gradient": (lambda e: e.gradient(e.x), None),
    "hessian": (lambda e: e.hessian_product(e.x, e.x), None),
    "exception": (_fail, _Failure),
    "interrupted forward": (_interrupt_forward, Interrupt),
    "interrupted backward": (_interrupt_backward, Interrupt),
}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("end", ENDS)
def test_everything_is_restored(end, weights):
    act, error = ENDS[end]
    with torch.inference_mode():
        specimen = architectures.sd15(*WEIGHTS[weights])
    model = specimen.patcher.model
    before, _ = sample(specimen, steps=2)

    def probe(evaluation):
        start = _state(model)
        caught = None
        try:
            with evaluation.differentiable(second_order=True):
                inside = _state(model)
                act(evaluation)
        except BaseException as exception:  # an interruption is no Exception
            caught = exception
        return start, inside, _state(model), type(caught) if caught else None

    after, (start, inside, stop, caught) = sample(specimen, probe, steps=2)
    assert caught is error
    assert inside["grad"] and not inside["inference"] and inside["training"]
    assert (inside["attributes"] != start["attributes"]) == (weights == "cast")
    assert stop == start
    assert torch.equal(after, before)
    assert torch.equal(sample(specimen, steps=2)[0], before)


def test_nested_blocks():
    with torch.inference_mode():
        specimen = architectures.sd15(*WEIGHTS["cast"])

    def probe(evaluation):
        expected = evaluation.gradient(evaluation.x)
        with evaluation.differentiable(second_order=True):
            inside = _state(specimen.patcher.model)
            first = evaluation.gradient(evaluation.x)
            assert _state(specimen.patcher.model) == inside
            second = evaluation.gradient(evaluation.x)
        return relative(first, expected), relative(second, expected)

    _, errors = sample(specimen, probe)
    assert max(errors) < 1e-5


def test_result_without_derivative_says_so():
    """A cached prediction, or one made without gradients, must be recognizable as such."""
    with torch.inference_mode():
        specimen = architectures.sd15()

    def probe(evaluation):
        with evaluation.differentiable():
            x = normal(evaluation.x).requires_grad_()
            with torch.no_grad():
                detached = evaluation.denoise(x)
            constant = evaluation.denoise(normal(evaluation.x))
            return (
                detached.requires_grad,
                constant.requires_grad,
                evaluation.denoise(x).requires_grad,
            )

    assert sample(specimen, probe)[1] == (False, False, True)


def _torch_attention(function, *args, **kwargs):
    return host_attention.attention_pytorch(*args, **kwargs)


def test_compiled_model_runs_eagerly_and_is_not_compiled_again():
    torch._dynamo.reset()
    counter = CompileCounter()
    with torch.inference_mode():
        specimen = architectures.sd3()
        # The host's default attention here chunks by free memory: it may compile anew at any time.
        options = specimen.patcher.model_options.setdefault("transformer_options", {})
        options["optimized_attention_override"] = _torch_attention
        keys = ["diffusion_model.joint_blocks.0", "diffusion_model.final_layer"]
        set_torch_compile_wrapper(specimen.patcher, backend=counter, keys=keys)
    before, _ = sample(specimen, steps=2)
    compiled = counter.frame_count
    assert compiled > 0

    after, errors = sample(specimen, lambda e: (e.gradient_error(), e.hessian_error()), steps=2)
    print(f"\ncompiled sd3 gradient {errors[0]:.1e}  hessian {errors[1]:.1e}")
    assert errors[0] < 1e-3
    assert errors[1] < 2e-3
    assert counter.frame_count == compiled
    assert torch.equal(after, before)
    torch._dynamo.reset()


def test_block_without_models_needs_no_host_state():
    with torch.inference_mode(), torch.no_grad():
        x = torch.randn(3)
        with differentiable(None, []):
            y = normal(x).requires_grad_()
            assert torch.autograd.grad((y * x).sum(), y)[0].equal(x)
        assert x.is_inference() and not torch.is_grad_enabled()


SWITCHES = ("disable_comfy_compiler", "disable_cuda_graphs")


@pytest.mark.parametrize("end", ["nothing", "exception", "interrupted forward"])
@pytest.mark.parametrize("present", [SWITCHES, SWITCHES[:1], ()])
def test_newer_hosts_record_nothing_meanwhile(end, present, monkeypatch):
    """Hosts from 0.34 on have these arguments; here a copy of this host's with them added."""
    args = argparse.Namespace(**vars(comfy.cli_args.args))
    for name in present:
        setattr(args, name, False)
    monkeypatch.setattr(comfy.cli_args, "args", args)
    before = dict(vars(args))
    act, error = ENDS[end]
    with torch.inference_mode():
        specimen = architectures.sd15()

    def probe(evaluation):
        try:
            with evaluation.differentiable():
                with evaluation.differentiable():
                    assert all(getattr(args, name) is True for name in present)
                assert all(getattr(args, name) is True for name in present)
                act(evaluation)
        except BaseException as exception:
            return dict(vars(args)), type(exception)
        return dict(vars(args)), None

    assert sample(specimen, probe)[1] == (before, error)
