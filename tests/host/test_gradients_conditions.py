"""Derivatives under everything the host's nodes attach to a model or to a conditioning."""

import comfy.hooks
import comfy.ldm.modules.attention
import comfy.sd
import pytest
import torch
from torch import Tensor

from . import architectures
from .architectures import Specimen
from .derivatives import sample


def _lora(specimen: Specimen, seed: int) -> dict[str, Tensor]:
    """A LoRA file: factors for every linear layer and convolution, differences for every norm."""
    generator = torch.Generator().manual_seed(seed)
    lora, rank = {}, 2

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    for key, weight in specimen.patcher.model.state_dict().items():
        name = key.removesuffix(".weight")
        if name == key or not key.startswith("diffusion_model"):
            continue
        if weight.ndim == 1:
            lora[f"{name}.diff"] = 0.1 * normal(*weight.shape)
            continue
        ones = [1] * (weight.ndim - 2)
        down = normal(rank, *weight.shape[1:])
        lora[f"{name}.lora_down.weight"] = down * down[0].numel() ** -0.5
        lora[f"{name}.lora_up.weight"] = 0.3 * normal(weight.shape[0], rank, *ones)
    return lora


def _patches(specimen):
    lora = _lora(specimen, seed=7)
    specimen.patcher, _ = comfy.sd.load_lora_for_models(specimen.patcher, None, lora, 0.8, 0)
    return {}


def _patches_of_an_offloaded_model(specimen):
    _patches(specimen)
    return dict(offload=True)


def _bypass_patches(specimen):
    """Adapters that the host hangs on ``forward`` of each layer, instead of patching weights."""
    lora = _lora(specimen, seed=7)
    specimen.patcher, _ = comfy.sd.load_bypass_lora_for_models(specimen.patcher, None, lora, 0.8, 0)
    return {}


def _hooks(specimen):
    first, second = (
        comfy.hooks.create_hook_lora(_lora(specimen, seed), 0.8, 0.0) for seed in (7, 8)
    )
    half = dict(area=(8, 4, 0, 4), strength=0.7)
    both = [
        *comfy.hooks.set_hooks_for_conditioning(specimen.positive, first),
        *comfy.hooks.set_hooks_for_conditioning(architectures.conditioning(seed=3, **half), second),
    ]
    return dict(conds=(both, specimen.negative))


def _areas(specimen):
    left = architectures.conditioning(seed=3, area=(8, 5, 0, 0), strength=0.7)
    return dict(conds=(specimen.positive + left, specimen.negative))


def _masks(specimen):
    mask = torch.zeros(1, 8, 8)
    mask[..., :5] = 0.8
    masked = architectures.conditioning(
        seed=3, mask=mask, mask_strength=0.9, set_area_to_bounds=False
    )
    return dict(conds=(specimen.positive + masked, specimen.negative))


def _inpaint(specimen):
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:7] = 1
    return dict(denoise_mask=mask)


def _control_net(specimen):
    control = architectures.control_net(specimen)
    conds = (specimen.positive, specimen.negative)
    for cond in conds:
        cond[0][1].update(control=control, control_apply_to_uncond=True)
    return dict(conds=conds)


def _attention_replacement(specimen):
    """Add attention over a picture's tokens to that over the text's, as an image prompt does."""
    picture = torch.randn(1, 4, architectures.CONTEXT)
    projections = {}

    def attend(q, k, v, options):
        heads = options["n_heads"]
        key, value = projections.setdefault(
            q.shape[-1], torch.randn(2, architectures.CONTEXT, q.shape[-1]).to(q)
        )
        attention = comfy.ldm.modules.attention.optimized_attention
        tokens = picture.to(q).expand(q.shape[0], -1, -1)
        return attention(q, k, v, heads) + attention(q, tokens @ key, tokens @ value, heads)

    specimen.patcher.set_model_attn2_replace(attend, "middle", 0)
    specimen.patcher.set_model_attn2_replace(attend, "input", 1)
    return {}


CASES = {
    case.__name__.strip("_"): case
    for case in (
        *(_patches, _patches_of_an_offloaded_model, _bypass_patches, _hooks),
        *(_areas, _masks, _inpaint, _control_net, _attention_replacement),
    )
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_and_effect(name):
    with torch.inference_mode():
        unconditioned, _ = sample(architectures.sd15())
        specimen = architectures.sd15()
        arguments = CASES[name](specimen)
        offload = arguments.pop("offload", False)

    def probe(evaluation):
        patcher = evaluation.guider.model_patcher
        if offload:  # the host's own way to leave every layer and its patches on the other device
            patcher.partially_unload(patcher.offload_device, 1e30)
            assert any(getattr(m, "weight_function", None) for m in patcher.model.modules())
        if name == "control_net":
            assert len(evaluation.guider.loaded_models) == 1
        return evaluation.gradient_error(), evaluation.hessian_error()

    result, errors = sample(specimen, probe, **arguments)
    print(f"\n{name:32s} gradient {errors[0]:.1e}  hessian {errors[1]:.1e}")
    assert errors[0] < 1e-3
    assert errors[1] < 2e-3
    again, _ = sample(specimen, **arguments)
    assert not torch.equal(result, unconditioned)  # the condition was there
    assert torch.equal(result, again)  # and differentiating left nothing behind
