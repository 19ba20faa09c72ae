"""Image Similarity Energy on every image tower of the host, held against transformers' own.

Files in the published layout, with random weights in the smallest configuration.
"""

from collections.abc import Callable
from typing import NamedTuple

import comfy.clip_vision
import pytest
import torch
import transformers
from safetensors.torch import load_file
from skimage import data
from torch import Tensor

from zmagic.host.similarity_towers import tower_of_clip_vision
from zmagic.nodes.demo_nodes import ZMagicLoadDemo, ZMagicLoadDemoNetworks
from zmagic.nodes.image_similarity_node import ZMagicImageSimilarity

from .demo_sampling import sampled
from .derivatives import one_thread, slope_of

COMMON = {"weight": 1.0, "start": 0.0, "end": 1.0}
SIZES = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "num_channels": 3,
    "patch_size": 16,
}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


class Kind(NamedTuple):
    """A type of tower: the host's facts of it, transformers' model, and what is taken from that."""

    facts: dict
    model: Callable[[], torch.nn.Module]
    whole: Callable[[object], Tensor]
    patches: Callable[[object], Tensor]
    prefix: str = ""  # of the names in published files


def clip() -> torch.nn.Module:
    config = transformers.CLIPVisionConfig(**SIZES, image_size=64, hidden_act="gelu")
    return transformers.CLIPVisionModel(config)


def siglip() -> torch.nn.Module:
    config = transformers.SiglipVisionConfig(**SIZES, image_size=64)
    return transformers.SiglipVisionModel(config)


def dinov2() -> torch.nn.Module:
    sizes = {**SIZES, "mlp_ratio": 4}
    return transformers.Dinov2Model(transformers.Dinov2Config(**sizes, image_size=64))


def dinov3() -> torch.nn.Module:
    config = transformers.DINOv3ViTConfig(
        **SIZES, image_size=64, num_register_tokens=4, use_gated_mlp=True, hidden_act="silu",
        mlp_bias=True, layer_norm_eps=1e-5,
    )  # fmt: skip
    return transformers.DINOv3ViTModel(config)


KINDS = {
    "clip_vision_model": Kind(
        {**SIZES, "image_size": 64, "hidden_act": "gelu"},
        clip,
        lambda result: result.pooler_output,
        lambda result: result.last_hidden_state[:, 1:],
        "vision_model.",
    ),
    "siglip_vision_model": Kind(
        {**SIZES, "image_size": 64, "hidden_act": "gelu_pytorch_tanh"},
        siglip,
        lambda result: result.last_hidden_state.mean(1),
        lambda result: result.last_hidden_state,
        "vision_model.",
    ),
    "dinov2": Kind(
        {**SIZES, **IMAGENET, "image_size": 64, "layer_norm_eps": 1e-6, "use_swiglu_ffn": False},
        dinov2,
        lambda result: result.pooler_output,
        lambda result: result.last_hidden_state[:, 1:],
    ),
    "dinov3": Kind(
        {
            **SIZES,
            **IMAGENET,
            "image_size": 64,
            "layer_norm_eps": 1e-5,
            "num_register_tokens": 4,
            "rope_theta": 100.0,
            "use_gated_mlp": True,
        },
        dinov3,
        lambda result: result.pooler_output,
        lambda result: result.last_hidden_state[:, 5:],
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def both(request, tmp_path_factory):
    """The host's tower, loaded from a file as its publishers write it, and transformers' own."""
    kind = KINDS[request.param]
    torch.manual_seed(0)
    model = kind.model().eval().requires_grad_(False)
    for value in model.parameters():  # layer scales and biases begin as constants
        value.add_(0.02 * torch.randn_like(value))
        value.copy_(value.half())  # the host keeps them in half precision
    folder = tmp_path_factory.mktemp("published")
    model.save_pretrained(folder)
    published = {
        name if name.startswith(kind.prefix) else kind.prefix + name: value
        for name, value in load_file(folder / "model.safetensors").items()
    }
    with torch.inference_mode():
        host = comfy.clip_vision.ClipVisionModel({"model_type": request.param, **kind.facts})
        missing, _ = host.load_sd(published)
    assert not missing
    return host, model, kind


def photograph() -> Tensor:
    """A photograph as an IMAGE, not square."""
    return torch.from_numpy(data.astronaut()[:300, 50:450])[None].float() / 255.0


def condition(**inputs):
    inputs = {"reference": photograph(), "reference_weights": "", **inputs, **COMMON}
    with torch.inference_mode(), one_thread():
        (chain,) = ZMagicImageSimilarity.execute(**inputs).args
    return chain[-1]


def test_embeddings_and_patches_are_those_of_transformers(both):
    host, model, kind = both
    tower = tower_of_clip_vision(host, 64)
    pixels = tower.preprocessing(photograph().movedim(-1, 1))
    assert pixels.shape == (1, 3, 64, 64)
    with torch.no_grad(), one_thread():
        result = model(pixels)
        whole, patches = tower.whole(pixels), tower.patches(pixels)
        if kind.model is clip:  # transformers has them before the last normalization
            expected = getattr(model, "vision_model", model).post_layernorm(kind.patches(result))
        else:
            expected = kind.patches(result)
    assert patches.shape == (1, 16, 48)
    torch.testing.assert_close(patches, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(whole, kind.whole(result), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("match", ["global", "patches"])
def test_a_reference_resembles_itself_and_slopes_are_difference_quotients(both, match):
    made = condition(clip_vision=both[0], match=match, size=64)
    square = torch.rand(1, 64, 64, 3)
    itself = condition(clip_vision=both[0], match=match, size=64, reference=square)
    with torch.no_grad(), one_thread():
        assert abs(itself.energy(square.movedim(-1, 1)).item()) < 1e-4
    image, region = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    region[..., 16:60, 8:64] = 1.0
    with one_thread():
        _, slope = slope_of(made, image)
        _, inside = slope_of(made, image, region)
        direction = slope / slope.norm()
        with torch.no_grad():
            step = 0.005  # best matches change over a longer one
            ahead, behind = (made.energy(image + sign * step * direction) for sign in (1, -1))
    quotient = ((ahead - behind) / (2 * step)).item()
    assert slope.norm().item() == pytest.approx(quotient, rel=0.05)
    assert inside.abs().max() > 0.0 and not inside[(region == 0.0).expand_as(inside)].any()


def test_dino_looks_at_the_size_that_is_wanted_and_others_say_that_they_do_not(both, caplog):
    host, _, kind = both
    sizes = {side: tower_of_clip_vision(host, side).preprocessing.input_size[0] for side in (0, 90)}
    condition(clip_vision=host, size=90)
    told = [record.message for record in caplog.records if "'size' to 0: 90" in record.message]
    if kind.model in (dinov2, dinov3):
        assert sizes == {0: 224, 90: 96} and not told
    else:
        assert sizes == {0: 64, 90: 64} and told


def test_references_are_encoded_once(both):
    host, passes = both[0], []
    condition(clip_vision=host, match="patches", size=64)
    handle = host.model.register_forward_pre_hook(lambda *_: passes.append(1))
    vision = getattr(host.model, "vision_model", None)
    inner = vision.register_forward_pre_hook(lambda *_: passes.append(1)) if vision else handle
    try:
        condition(clip_vision=host, match="patches", size=64)
    finally:
        handle.remove()
        inner.remove()
    assert passes == []


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "expected either 'openclip' or 'clip_vision' to be connected, got neither"),
        ({"openclip": object(), "clip_vision": object()}, "expected either .* got both"),
    ],
)
def test_one_tower_is_needed(inputs, message):
    with pytest.raises(ValueError, match=f"^Image Similarity Energy: {message}"):
        condition(**inputs)


@pytest.mark.slow
def test_patches_of_a_portrait_are_followed_in_the_demo_model():
    with torch.inference_mode():
        model, _, vae, *_ = demo = ZMagicLoadDemo.execute().args
        openclip = ZMagicLoadDemoNetworks.execute().args[0]
    guide = condition(openclip=openclip, match="patches", reference=demo[4])
    other = condition(openclip=openclip, match="global", reference=demo[4])

    def energies(strength: float) -> list[float]:
        image, _ = sampled(model, vae, guide, strength, steps=4, settings="quality")
        with torch.no_grad():
            return [each.energy(image.clone()).item() for each in (guide, other)]

    plain, guided = energies(0.0), energies(0.2)
    print(f"patches {plain[0]:.3f} -> {guided[0]:.3f}, global {plain[1]:.3f} -> {guided[1]:.3f}")
    assert guided[0] < 0.9 * plain[0] and guided[1] < plain[1]
