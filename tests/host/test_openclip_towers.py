"""Towers under the host: precision, derivatives, and the host's own CLIP_VISION and CLIP."""

from functools import cache

import comfy.clip_vision
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import open_clip
import pytest
import torch
from comfy.supported_models_base import ClipTarget
from safetensors.torch import save_file
from skimage import data
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from zmagic.guidance.energies import ImageSimilarity, Style, Text
from zmagic.guidance.energies.style import mean_grams
from zmagic.guidance.pictures.preprocessing import Preprocessing
from zmagic.host.gradients import differentiable
from zmagic.host.networks import Network
from zmagic.nodes.image_similarity_node import ZMagicImageSimilarity
from zmagic.nodes.openclip_energy_nodes import ZMagicStyle, ZMagicText
from zmagic.nodes.openclip_loader_node import ZMagicLoadOpenCLIP

from .architectures import random_weights
from .derivatives import gradient_error, hessian_error, one_thread, repeated

COMMON = {"weight": 1.0, "start": 0.0, "end": 1.0}
SEE = Preprocessing((64, 64), fit="crop", interpolation="bicubic")


class Tower(nn.Module):
    """open_clip's vision transformer: the embedding and the maps after two blocks."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.visual = open_clip.transformer.VisionTransformer(64, 16, 64, 4, 4, 4.0, output_dim=64)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        result = self.visual.forward_intermediates(pixels, indices=[1, 2])
        return (result["image_features"], *result["image_intermediates"])


def text_energy(network: Network, reference: Tensor):
    target = torch.randn(1, 64, generator=torch.Generator().manual_seed(1))
    return Text(lambda x: network(x)[0], SEE, target, torch.ones(1))


def style_energy(network: Network, reference: Tensor):
    with torch.no_grad():
        targets = mean_grams(network(SEE(reference))[1:], torch.ones(1))
    return Style(lambda x: network(x)[1:], SEE, targets)


def similarity_energy(network: Network, reference: Tensor):
    with torch.no_grad():
        target = network(SEE(reference))[0]
    return ImageSimilarity(lambda x: network(x)[0], SEE, target, torch.ones(1))


def mixed_energy(network: Network, reference: Tensor):
    """Parts whose gradients differ by orders of magnitude go through one half-precision pass."""
    text, style = text_energy(network, reference), style_energy(network, reference)

    def energy(image: Tensor) -> Tensor:
        parts = network(SEE(image))
        text.network = lambda x: parts[0]
        style.network = lambda x: parts[1:]
        return 1e-4 * text(image) + 100.0 * style(image)

    return energy


ENERGIES = [text_energy, style_energy, similarity_energy, mixed_energy]


@cache
def slope(make, dtype: torch.dtype, scale: float) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    reference, image = torch.rand(2, 1, 3, 64, 64, generator=generator).unbind(0)
    energy = make(Network(Tower(), "tower", dtype), reference)
    with torch.enable_grad(), one_thread():
        image.requires_grad_(True)
        return torch.autograd.grad(scale * energy(image).sum(), image)[0]


@pytest.mark.parametrize("make", ENERGIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_gradients_in_half_precision(make, dtype, scale):
    """Measured: cosine 0.998 to 1.000, length within 1 %, the same for small energies."""
    exact, half = slope(make, torch.float32, 1.0), slope(make, dtype, scale) / scale
    assert half.dtype == torch.float32
    assert (half * exact).sum() / half.norm() / exact.norm() > 0.99
    assert half.norm() / exact.norm() == pytest.approx(1.0, abs=0.03)


def test_a_view_of_a_network_shares_its_weights():
    network = Network(Tower(), "tower", torch.bfloat16)
    weight = network.module.visual.proj
    view = Network(nn.Sequential(network.module.visual), "view", torch.bfloat16, network.patcher)
    assert view.patcher is network.patcher
    assert next(view.module.parameters()) is next(network.module.visual.parameters())
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(view(pixels), network(pixels)[0])
    assert weight.dtype == torch.bfloat16


def test_integers_go_into_a_network_as_they_are():
    embedding = nn.Embedding(50000, 4)
    network = Network(embedding, "tokens", torch.float16)
    tokens = torch.tensor([[49407, 49406]])  # not numbers of half precision
    result = network(tokens)
    assert result.dtype == torch.float32
    assert torch.equal(result, embedding(tokens).float())


# ---------------------------------------------------------------- the host's own models


VISION = {
    "hidden_size": 32,
    "image_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_channels": 3,
    "patch_size": 16,
    "projection_dim": 48,
    "hidden_act": "quick_gelu",
    "model_type": "clip_vision_model",
}
TEXT_L = {
    "hidden_size": 48,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
}
TEXT_G = {**TEXT_L, "hidden_size": 64}
OPTIONS = {"clip_l_model_config": TEXT_L, "clip_g_model_config": TEXT_G}


def vision(**changes) -> comfy.clip_vision.ClipVisionModel:
    """The host's image tower, small, with random weights, as its loader leaves it."""
    with torch.inference_mode():
        model = comfy.clip_vision.ClipVisionModel({**VISION, **changes})
        random_weights(model.model, seed=1)
    return model


@pytest.fixture(scope="module")
def clip_vision():
    return vision()


def text_weights(config: dict, projection: bool = True) -> dict[str, Tensor]:
    part = comfy.sd1_clip.SDClipModel(
        textmodel_json_config=None,
        model_options={"model_name": "clip_l", "clip_l_model_config": config},
    )
    random_weights(part.transformer, seed=2)
    weights = part.transformer.state_dict()
    return {k: v for k, v in weights.items() if projection or "text_projection" not in k}


def clip_of(folder, projection: bool = True) -> comfy.sd.CLIP:
    """The host's SD1.5 text encoder from a file, small, as 'Load CLIP' makes it."""
    path = folder / f"clip_{projection}.safetensors"
    weights = text_weights(TEXT_L, projection)
    save_file(weights, path)
    target = ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    with torch.inference_mode():
        clip = comfy.sd.CLIP(target, model_options=OPTIONS, state_dict=[weights])
    # comfy.sd.load_clip leaves this on what it loads.
    clip.patcher.cached_patcher_init = (
        comfy.sd.load_clip_model_patcher,
        ([str(path)], None, comfy.sd.CLIPType.STABLE_DIFFUSION, OPTIONS),
    )
    return clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    with torch.no_grad():
        return clip_of(tmp_path_factory.mktemp("clip"))


def load(clip_vision, clip=None):
    """Load OpenCLIP on models of the host, in a prompt."""
    with torch.inference_mode(), one_thread():
        return ZMagicLoadOpenCLIP.execute(
            "ViT-B-32", "not used", False, "auto", clip_vision=clip_vision, clip=clip
        ).args[0]


def astronaut() -> Tensor:
    """A photograph as an IMAGE, not square."""
    return torch.from_numpy(data.astronaut()[:300, 50:450])[None].float() / 255.0


def test_embeddings_are_those_of_the_host(clip_vision):
    image = astronaut()
    with torch.inference_mode():
        expected = clip_vision.encode_image(image)["image_embeds"]
        ours = load(clip_vision).embeddings(image.movedim(-1, 1))
    # Its preprocessing rounds to 8 bits and clips: measured 1 - cosine 1.2e-5.
    assert 1.0 - cosine_similarity(ours, expected).item() < 1e-4
    openclip = load(clip_vision)
    # The same rounded pixels for both, from the device on which the host makes them.
    pixels = comfy.clip_vision.clip_preprocess(image.to(clip_vision.load_device), size=64)
    with torch.inference_mode():
        assert repeated(openclip.image(pixels).to(expected), expected)


def test_nothing_is_copied(clip_vision, clip):
    openclip = load(clip_vision, clip)
    assert openclip.image.patcher is clip_vision.patcher
    assert openclip.after_blocks((1,)).patcher is clip_vision.patcher


def test_blocks_are_those_of_the_host(clip_vision):
    openclip = load(clip_vision)
    pixels = torch.rand(1, 3, 64, 64).to(clip_vision.load_device)
    with torch.inference_mode():
        _, every, *_ = clip_vision.model(pixel_values=pixels, intermediate_output="all")
        features = openclip.after_blocks((1, 3))(pixels)
    torch.testing.assert_close(features[0], every[:, 0, 1:])
    torch.testing.assert_close(features[1], every[:, 2, 1:])
    with pytest.raises(ValueError, match="expected blocks from 1 to 3, those of the connected CL"):
        openclip.after_blocks((4,))


@pytest.mark.parametrize("prompt", ["a cat", "a (red:1.4) cat: sitting", "cat " * 100])
def test_texts_are_the_projected_ones_of_the_host(clip_vision, clip, prompt):
    texts = load(clip_vision, clip).texts([prompt, "a dog"])
    assert texts.shape == (2, 48) and not texts.is_inference()
    with torch.inference_mode():
        _, pooled = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)
        weight = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    # SD1.5's encoder itself returns the embedding before the projection.
    torch.testing.assert_close(texts[0], (pooled.float() @ weight.float().T)[0])
    assert clip.cond_stage_model.clip_l.return_projected_pooled is False


def test_the_fitting_part_of_two_text_encoders_is_used():
    target = ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel)
    with torch.inference_mode():
        clip = comfy.sd.CLIP(target, model_options=OPTIONS)
        random_weights(clip.cond_stage_model, seed=3)
        _, pooled = clip.encode_from_tokens(clip.tokenize("a cat"), return_pooled=True)
    texts = load(vision(projection_dim=64), clip).texts(["a cat"])
    torch.testing.assert_close(texts, pooled.float())


def energies(openclip) -> dict:
    reference = torch.rand(1, 60, 40, 3)
    text = {"prompt": "a cat", "negative_prompt": "rain", "crops": 2, "smallest_crop": 0.6}
    with torch.inference_mode():
        outputs = {
            "text": ZMagicText.execute(openclip, **text, **COMMON),
            "style": ZMagicStyle.execute(reference, "1, 2", "", openclip, **COMMON),
            "similarity": ZMagicImageSimilarity.execute(reference, openclip, "", **COMMON),
        }
    return {name: output.args[0][0].energy for name, output in outputs.items()}


@pytest.mark.parametrize("name", ["text", "style", "similarity"])
def test_derivatives_through_the_hosts_tower(clip_vision, clip, name):
    """Blocks of the host write into their input; its weights are inference tensors."""
    energy = energies(load(clip_vision, clip))[name]
    image = torch.rand(1, 3, 64, 64)

    def value(x: Tensor) -> Tensor:
        with torch.no_grad():
            return energy(x).sum().double()

    def slope(x: Tensor, direction: Tensor | None = None) -> Tensor:
        second = direction is not None
        with differentiable(None, [clip_vision.model], second_order=second), one_thread():
            x = x.clone().requires_grad_(True)
            (first,) = torch.autograd.grad(energy(x).sum(), x, create_graph=second)
            if not second:
                return first
            return torch.autograd.grad((first * direction).sum(), x)[0]

    assert gradient_error(value, image, slope(image)) < 2e-2
    direction = torch.randn_like(image)
    assert hessian_error(slope, image, direction, slope(image, direction)) < 2e-2


def test_text_needs_a_text_tower(clip_vision):
    inputs = {"prompt": "x", "negative_prompt": "", "crops": 1, "smallest_crop": 0.6, **COMMON}
    with pytest.raises(ValueError, match="^Text Energy: 'openclip' has no text tower; connect the"):
        ZMagicText.execute(load(clip_vision), **inputs)


def test_other_image_towers_are_refused():
    with pytest.raises(
        ValueError, match="^Load OpenCLIP: 'clip_vision' must be a CLIP image tower"
    ):
        load(vision(model_type="siglip_vision_model"))


def test_an_image_tower_without_a_projection_is_refused():
    model = vision()
    with torch.inference_mode():
        model.model.visual_projection.weight.zero_()
    with pytest.raises(
        ValueError, match="^Load OpenCLIP: the file of 'clip_vision' has no weights"
    ):
        load(model)


def test_other_text_towers_are_refused(clip):
    message = (
        "^Load OpenCLIP: 'clip' must have the text tower that was trained with 'clip_vision', "
        "which embeds in 40 dimensions, got one of 48 dimensions"
    )
    with pytest.raises(ValueError, match=message):
        load(vision(projection_dim=40), clip)


@pytest.mark.parametrize("left_there", ["zeros", "identity", "old memory"])
def test_a_text_tower_without_a_projection_is_refused(clip_vision, tmp_path, left_there):
    """SD1.5 checkpoints lack it; the host leaves in its place whatever memory held."""
    with torch.no_grad():
        clip = clip_of(tmp_path, projection=False)
    weight = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    with torch.inference_mode():
        weight.copy_(
            {
                "zeros": torch.zeros_like(weight),
                "identity": torch.eye(len(weight)),
                "old memory": torch.randn(weight.shape),  # only the file tells
            }[left_there]
        )
    message = "^Load OpenCLIP: the text tower in 'clip' has no projection .* 'Load CLIP'"
    with pytest.raises(ValueError, match=message):
        load(clip_vision, clip)
