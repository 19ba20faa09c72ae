"""Derivatives through each of the host's attention functions, and around inference kernels."""

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
from comfy.ldm.modules.sub_quadratic_attention import efficient_dot_product_attention

from zmagic.host.gradients import differentiable, differentiable_options, normal

from . import architectures
from .derivatives import relative, sample

KEY = "optimized_attention_override"


@pytest.mark.parametrize("name", ["basic", "pytorch", "split", "sub_quad"])
@pytest.mark.parametrize("build", [architectures.sd15, architectures.lumina2])
def test_attention_functions(name, build):
    function = getattr(host_attention, f"attention_{name}")
    with torch.inference_mode():
        specimen = build()
        options = specimen.patcher.model_options["transformer_options"]
        options[KEY] = lambda kernel, *args, **kwargs: function(*args, **kwargs)
    _, errors = sample(specimen, lambda e: (e.gradient_error(), e.hessian_error()))
    print(f"\n{build.__name__} {name} gradient {errors[0]:.1e}  hessian {errors[1]:.1e}")
    assert errors[0] < 1e-3
    assert errors[1] < 2e-3


def test_another_packs_inference_kernel_is_replaced_and_its_override_kept():
    calls = []

    def without_derivative(kernel, *args, **kwargs):
        calls.append(kernel)
        return kernel(*args, **kwargs).detach()  # what a kernel outside autograd returns

    with torch.inference_mode():
        specimen = architectures.sd15()
        specimen.patcher.model_options["transformer_options"][KEY] = without_derivative

    def probe(evaluation):
        calls.clear()
        evaluation.gradient(evaluation.x)
        return len(calls), evaluation.gradient_error()

    _, (called, error) = sample(specimen, probe)
    assert called
    assert error < 1e-3


def test_the_hosts_inference_kernels_are_replaced():
    """With sage attention chosen at launch, each call reaches the override with that function."""
    q, k, v = torch.randn(3, 2, 6, 8)  # [B, tokens, heads * channels]
    override = differentiable_options({})["transformer_options"][KEY]
    expected = host_attention.attention_pytorch(q, k, v, 2)
    for name in ("sage", "flash", "xformers"):
        function = getattr(host_attention, f"attention_{name}").__wrapped__
        found = override(function, q.requires_grad_(), k, v, 2, _inside_attn_wrapper=True)
        assert found.requires_grad
        assert torch.equal(found, expected)


def test_options_are_copied_and_evaluations_stay_on_one_device():
    options = {"multigpu_clones": {}, "transformer_options": {"patches": {}}, "kept": 1}
    found = differentiable_options(options)
    assert found["kept"] == 1
    assert "multigpu_clones" in options and "multigpu_clones" not in found
    assert KEY not in options["transformer_options"]


def test_chunked_sub_quadratic_attention():
    """With little memory the host splits keys too, and then writes exp into its own input."""
    q, k, v, cotangent = torch.randn(4, 2, 24, 8)  # [B * heads, tokens, channels]

    def gradient(**chunks):
        q_ = normal(q).requires_grad_()
        out = efficient_dot_product_attention(
            q_, k.transpose(1, 2), v, use_checkpoint=False, **chunks
        )
        (g,) = torch.autograd.grad(out.pow(2), q_, cotangent, create_graph=True)
        return g.detach(), torch.autograd.grad(g.pow(2).sum(), q_)[0]

    with differentiable(None, [], second_order=True):
        whole = gradient(query_chunk_size=24, kv_chunk_size=24)
        chunked = gradient(query_chunk_size=8, kv_chunk_size=6)
    assert relative(chunked[0], whole[0]) < 1e-5
    assert relative(chunked[1], whole[1]) < 1e-5
