"""Each way in which other packs hook into a model: the gradient is that of what they compute.

The patches are made for this; each does in its own words what a kind of pack does. All of them are
functions of the latent alone, so that a difference quotient of the plain prediction is the truth.
"""

from dataclasses import replace

import comfy.patcher_extension
import comfy.samplers
import pytest
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import attention_pytorch

from . import architectures
from .derivatives import sample

Wrappers = comfy.patcher_extension.WrappersMP
STEPS = (3e-3, 3e-4)


def _wrapped(kind, wrapper):
    def patch(model):
        model.add_wrapper_with_key(kind, "neighbor", wrapper)

    return patch


def _attention_override(model):
    def override(kernel, q, k, v, heads, *args, **kwargs):
        return kernel(q * 1.1, k, v, heads, *args, **kwargs) * 0.9

    model.model_options["transformer_options"]["optimized_attention_override"] = override


def _attention_override_with_container_function(model):
    """Newer hosts hand such an override containers to empty; ours must not hide that it is one."""
    _attention_override(model)
    override = model.model_options["transformer_options"]["optimized_attention_override"]
    override.container_function = lambda q, k, v, *args, **kwargs: override(
        attention_pytorch, q.take(), k.take(), v.take(), *args, **kwargs
    )


@torch.library.custom_op("zmagic_tests::attention", mutates_args=())
def _kernel_without_formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def _attention_override_with_a_kernel_of_its_own(model):
    """Such a kernel claims a gradient, and has none when it is asked for."""

    def override(kernel, q, k, v, heads, *args, **kwargs):
        split = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        return _kernel_without_formula(*split).transpose(1, 2).flatten(2)

    model.model_options["transformer_options"]["optimized_attention_override"] = override


def _attention_patches(model):
    def before(q, k, v, options):
        q *= 1.1
        return q, k, v + 0.1 * v.mean(1, keepdim=True)

    model.set_model_attn1_patch(before)
    model.set_model_attn2_patch(before)


def _attention_replaced(model):
    def attend(q, k, v, options):
        out = attention_pytorch(q, k, v, options["n_heads"])
        out[:, ::2] *= 0.8
        return out

    for block in (("middle", 0), ("input", 1), ("output", 0)):
        model.set_model_attn1_replace(attend, *block)
        model.set_model_attn2_replace(attend, *block)


def _attention_outputs_written(model):
    def output(n, options):
        n.data[..., ::3] *= 0.6  # autograd does not notice such a write
        n[: n.shape[0] // 2].add_(0.1 * n.mean(1, keepdim=True)[: n.shape[0] // 2])
        return n

    model.set_model_attn1_output_patch(output)
    model.set_model_attn2_output_patch(output)


def _chunks_written(model):
    """Torch refuses a write into one of several views that one function has returned."""

    def output(n, options):
        first, second = n.chunk(2)
        first *= 1.2
        second.add_(0.3 * first)
        for row in first.unbind(1)[:2]:  # parts of a part
            row.tanh_()
        n *= 1.1  # the whole, whose parts are read afterwards
        return torch.cat([first, 0.9 * second])

    model.set_model_attn1_output_patch(output)
    model.set_model_output_block_patch(lambda h, hsp, o: (_halves_scaled(h), _halves_scaled(hsp)))


def _halves_scaled(h):
    left, right = torch.split(h, h.shape[1] // 2, dim=1)
    left.mul_(0.7)
    return torch.cat([right, left], dim=1)


def _blocks_written(model):
    def write(h, options):
        h[:, :4] = h[:, 4:8] * h[:, :4].sigmoid()
        F.silu(h[:, 8:], inplace=True)
        torch.mul(h, 1.1, out=h)
        return h

    def output(h, hsp, options):
        hsp[..., 1:, :] -= 0.5 * hsp[..., :-1, :].clone()
        return write(h, options), hsp

    model.set_model_input_block_patch(write)
    model.set_model_input_block_patch_after_skip(write)
    model.set_model_output_block_patch(output)
    model.set_model_patch(
        lambda args: args | {"h": write(args["h"], None)}, "middle_block_after_patch"
    )


def _replaced_forwards(model):
    """An instance attribute around the class's method; one of them without gradients at all."""
    network = model.model.diffusion_model
    for block, silent in ((network.input_blocks[1][0], False), (network.out[2], True)):
        forward = type(block).forward

        def replaced(*args, block=block, forward=forward, silent=silent, **kwargs):
            if not silent:
                return 0.9 * forward(block, *args, **kwargs)
            with torch.no_grad():  # what it measures does not enter the prediction
                forward(block, *args, **kwargs).mul_(3.0)
            return forward(block, *args, **kwargs)

        model.add_object_patch(f"diffusion_model.{_path(network, block)}.forward", replaced)


def _path(network, block):
    return next(name for name, module in network.named_modules() if module is block)


def _function_wrapper(model):
    def wrapper(apply_model, args):
        out = apply_model(args["input"] * 0.95, args["timestep"], **args["c"])
        out += 0.1 * args["input"]
        return out

    model.set_model_unet_function_wrapper(wrapper)


def _tiles(model):
    """The network is called for tiles of other shapes, whose results are averaged."""

    def wrapper(apply_model, args):
        x, out, count = args["input"], torch.zeros_like(args["input"]), 0
        weight = torch.zeros_like(x)
        for top in (0, 2):
            for left in (0, 2, 4):
                tile = (..., slice(top, top + 6), slice(left, left + 4))
                out[tile] += apply_model(x[tile], args["timestep"], **args["c"])
                weight[tile] += 1
                count += 1
        return out.div_(weight)

    model.set_model_unet_function_wrapper(wrapper)


def _apply_model_wrapper(executor, x, *args, **kwargs):
    return executor(x, *args, **kwargs) - 0.2 * executor(0.9 * x, *args, **kwargs)


def _diffusion_model_wrapper(executor, x, *args, **kwargs):
    out = executor(x, *args, **kwargs)
    return out.mul_(1.1).add_(x)


def _cached_residual(model):
    """The network runs for the first half of the batch; the residual serves the second half."""

    def wrapper(executor, x, timesteps, context=None, *args, **kwargs):
        half = x.shape[0] // 2
        out = executor(x[:half], timesteps[:half], context[:half], *args, **kwargs)
        residual = out - x[:half]
        return torch.cat([out, x[half:] + residual])

    _wrapped(Wrappers.DIFFUSION_MODEL, wrapper)(model)


def _pre_cfg(model):
    """Copies what it gets, and writes into the copies and into the originals."""

    def pre_cfg(args):
        conds = [cond.clone() for cond in args["conds_out"]]
        conds[0].mul_(1.1)
        args["conds_out"][1].add_(0.05 * conds[0])
        return [conds[0], args["conds_out"][1], *conds[2:]]

    model.set_model_sampler_pre_cfg_function(pre_cfg)


def _post_cfg(model):
    def post_cfg(args):
        denoised = args["denoised"]
        kept = denoised.clone()
        denoised -= denoised.mean((-2, -1), keepdim=True)
        return denoised + 0.1 * kept * args["cond_denoised"]

    model.set_model_sampler_post_cfg_function(post_cfg)


def _post_cfg_with_another_evaluation(model):
    """Add a post-CFG function that evaluates the model again, as perturbed attention guidance does.

    The evaluation has changed options, copied at the top; self attention guidance does so, too.
    """

    def post_cfg(args):
        options = comfy.model_patcher.create_model_options_clone(args["model_options"])
        options["transformer_options"]["patches"] = {
            "attn1_output_patch": [lambda n, options: n.mul_(0.5)]
        }
        conds = [args["cond"]]
        (worse,) = comfy.samplers.calc_cond_batch(
            args["model"], conds, args["input"], args["sigma"], options
        )
        return args["denoised"] + 0.7 * (args["cond_denoised"] - worse)

    model.set_model_sampler_post_cfg_function(post_cfg)


def _cfg_function(model):
    def cfg(args):
        cond, uncond = args["cond"], args["uncond"]
        uncond *= 0.9
        return uncond + args["cond_scale"] * (cond - uncond) / (1 + (cond - uncond).std())

    model.set_model_sampler_cfg_function(cfg)


def _calc_cond_batch(executor, model, conds, x, timestep, model_options):
    out = executor(model, conds, x, timestep, model_options)
    return [o * (1 + 0.1 * k) for k, o in enumerate(out)]


def _second_predict_noise(executor, x, timestep, model_options=None, seed=None):
    denoised = executor(x * 0.98, timestep, model_options, seed)
    return denoised.add_(0.1 * x)


def _buffers_from_before(model):
    """A pack's buffers, made while no gradient was needed, written in place since."""
    with torch.inference_mode():
        buffer = torch.zeros(1)
        mean = torch.zeros(1, 1, 8, 8)

    def post_cfg(args):
        denoised = args["denoised"]
        buffer.mul_(0.5).add_(1.0)
        mean.copy_(denoised.mean((0, 1), keepdim=True))
        return denoised + mean

    model.set_model_sampler_post_cfg_function(post_cfg)


def _written_by_themselves(model):
    """Add patches whose results share their memory with what they are computed from."""

    def output(h, options):
        h = h.clone()
        h[:, :2] *= h[:, 2:4]
        h.div_(h.square().add_(1.0))
        torch._foreach_mul_([h], [h])
        torch.mul(h.sigmoid(), h, out=h)
        return h

    def patch(h, hsp, options):
        return output(h, options), hsp

    model.set_model_output_block_patch(patch)


NEIGHBORS = {
    patch.__name__.strip("_"): patch
    for patch in (
        *(_attention_override, _attention_override_with_container_function),
        *(_attention_override_with_a_kernel_of_its_own, _attention_patches, _attention_replaced),
        *(_attention_outputs_written, _chunks_written, _blocks_written, _replaced_forwards),
        *(_function_wrapper, _tiles, _cached_residual, _pre_cfg, _post_cfg, _cfg_function),
        *(_post_cfg_with_another_evaluation, _buffers_from_before, _written_by_themselves),
    )
} | {
    "apply_model_wrapper": _wrapped(Wrappers.APPLY_MODEL, _apply_model_wrapper),
    "diffusion_model_wrapper": _wrapped(Wrappers.DIFFUSION_MODEL, _diffusion_model_wrapper),
    "calc_cond_batch_wrapper": _wrapped(Wrappers.CALC_COND_BATCH, _calc_cond_batch),
    "second_predict_noise_wrapper": _wrapped(Wrappers.PREDICT_NOISE, _second_predict_noise),
}


@pytest.fixture(scope="module")
def specimen():
    with torch.inference_mode():
        return architectures.sd15()


@pytest.mark.parametrize("name", NEIGHBORS)
def test_gradient_is_that_of_the_patched_prediction(name, specimen):
    plain, _ = sample(specimen)
    with torch.inference_mode():
        model = specimen.patcher.clone()
        NEIGHBORS[name](model)
    beside = replace(specimen, patcher=model)

    def probe(evaluation):
        inside, before = evaluation.plain(), evaluation.options
        error = evaluation.gradient_error(*STEPS)
        assert torch.equal(evaluation.plain(), inside) or name == "buffers_from_before"
        assert evaluation.options is before
        return error

    samples, error = sample(beside, probe)
    print(f"\n{name}: gradient {error:.1e}")
    assert error < 1e-3
    assert not torch.equal(samples, plain)  # the neighbor acts


@pytest.mark.parametrize(
    "name",
    [
        *("attention_outputs_written", "blocks_written", "chunks_written", "buffers_from_before"),
        *("attention_override_with_a_kernel_of_its_own", "post_cfg", "tiles"),
    ],
)
def test_second_derivatives(name, specimen):
    with torch.inference_mode():
        model = specimen.patcher.clone()
        NEIGHBORS[name](model)
    _, error = sample(replace(specimen, patcher=model), lambda e: e.hessian_error())
    print(f"\n{name}: hessian {error:.1e}")
    assert error < 2e-3
