"""The demo model inside the real host: it loads, samples portraits, takes LoRAs, is reloadable."""

from pathlib import Path

import comfy.lora
import comfy.model_management
import latent_preview
import nodes
import numpy as np
import pytest
import torch

from zmagic.host import decoders, demo_model
from zmagic.nodes.demo_nodes import ZMagicLoadDemo

from .demo_sampling import said

PAGE = Path(__file__).resolve().parents[2] / "web" / "docs" / "ZMagicLoadDemo.md"
STEPS = 12
PROMPT = "a photo of a person"


@pytest.fixture(scope="module")
def demo():
    """MODEL, CLIP, VAE and pictures, made as in a prompt."""
    with torch.inference_mode():
        return ZMagicLoadDemo.execute().args


@pytest.fixture(scope="module")
def samples(demo):
    return sample(demo[0])


def sample(model, seed: int = 1, steps: int = STEPS, batch: int = 2) -> torch.Tensor:
    """Latents ``[batch, 16, 16, 16]`` from the stock KSampler."""
    with torch.inference_mode():
        # As Empty Latent Image makes it: the host gives it the model's channels.
        latent = {"samples": torch.zeros(batch, 4, 16, 16)}
        (result,) = nodes.common_ksampler(
            model, seed, steps, 3.0, "dpmpp_2m", "karras", said(PROMPT), said(), latent
        )
        return result["samples"]


def test_is_an_sd15_model_to_the_host(demo):
    model, clip, vae, *pictures = demo
    assert [list(picture.shape) for picture in pictures] == [
        [1, side, side, 3] for side in (256, 128, 128, 128)
    ]
    assert all(0.0 <= picture.min() < picture.max() <= 1.0 for picture in pictures)
    latents = torch.randn(1, 16, 2, 2)
    assert torch.equal(model.model.process_latent_out(latents), latents)
    assert model.model.model_type.name == "EPS"
    assert model.model.concat_keys == ()  # no inpainting model, however many channels it has
    assert model.load_device == comfy.model_management.get_torch_device()
    assert clip.patcher.load_device == comfy.model_management.text_encoder_device()
    assert vae.latent_channels == model.model.latent_format.latent_channels == 16
    assert vae.downscale_ratio == 8


@pytest.mark.parametrize("text", [ZMagicLoadDemo.GET_SCHEMA().description, PAGE.read_text("utf-8")])
def test_its_size_is_told_as_it_is(text):
    names = ("UNET", "TEXT_ENCODER", "AUTOENCODER", "PHOTOGRAPH", "WOMAN", "MAN", "LAYOUT")
    size = sum(getattr(demo_model, f"{name}_FILE").stat().st_size for name in names)
    assert f"{round(size / 1e6)} MB" in text


def test_every_weight_is_loaded(caplog):
    caplog.set_level("DEBUG")
    demo_model.load_unet()
    demo_model.load_text_encoder()
    demo_model.load_autoencoder()
    complaints = [r.message for r in caplog.records if "missing" in r.message.lower()]
    complaints += [r.message for r in caplog.records if "unexpected" in r.message.lower()]
    assert complaints == []


def test_samples_are_portraits(demo):
    """Properties of a portrait before a plain wall which no decoded noise has."""
    model, _, vae, *portraits = demo
    samples = sample(model, batch=8)
    with torch.inference_mode():
        image = vae.decode(samples)
        noise = vae.decode(torch.randn_like(samples) * samples.std())
        real = torch.cat([vae.encode(portrait) for portrait in portraits[1:]])
    assert image.shape == (8, 128, 128, 3)
    assert image.min() >= 0.0 and image.max() <= 1.0
    assert 0.7 < samples.std() / real.std() < 1.2
    # Measured on 24 samples: symmetry -0.01 to 0.83 (light comes from a side), with a mean of 0.44
    # to 0.58 over 8, wall 0.003 to 0.022; on decoded noise: symmetry below 0.14, wall above 0.09.
    assert symmetry(image).mean() > 0.35 > 0.2 > symmetry(noise).mean()
    wall, face = detail(image)
    assert wall.max() < 0.03 and (face > 2.0 * wall).all()
    assert detail(noise)[0].min() > 0.06


def test_samples_lie_where_the_autoencoder_works(demo, samples):
    """Decoded and encoded again, a sample comes back; noise of the same size does not."""
    noise = torch.randn_like(samples) * samples.std()
    errors = [round_trip_error(demo[2], latent) for latent in (samples, noise)]
    assert errors[0].max() < 0.08 < errors[1].min()


def symmetry(image: torch.Tensor) -> torch.Tensor:
    """Correlation of the brightness of ``[B, H, W, 3]`` with its mirror image, ``[B]``."""
    gray = image.mean(-1)
    gray = gray - gray.mean((1, 2), keepdim=True)
    return (gray * gray.flip(-1)).sum((1, 2)) / gray.square().sum((1, 2))


def detail(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Spread of the colors in the upper corners (the wall) and in the middle (the face)."""
    blocks = image.unfold(1, 16, 16).unfold(2, 16, 16).std((-1, -2)).mean(-1)  # [B, 8, 8]
    return torch.stack((blocks[:, 0, 0], blocks[:, 0, -1])).amax(0), blocks[:, 3:5, 3:5].mean(
        (1, 2)
    )


def round_trip_error(vae, latent: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        again = vae.encode(vae.decode(latent))
    return (again - latent).square().mean((1, 2, 3)) / latent.square().mean((1, 2, 3))


@pytest.mark.parametrize("method", ["Auto", "Latent2RGB", "TAESD"])
def test_previews_show_the_picture(demo, samples, monkeypatch, method):
    """The host's own previewer shows it, however it is set; no TAESD of another model is taken."""
    method = latent_preview.LatentPreviewMethod[method]
    monkeypatch.setattr(latent_preview.args, "preview_method", method)
    model, _, vae, *_ = demo
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
    assert isinstance(previewer, latent_preview.Latent2RGBPreviewer)
    for latent in samples.split(1):
        _, preview, _ = previewer.decode_latent_to_preview_image(
            "JPEG", model.model.process_latent_in(latent)
        )
        shown = torch.from_numpy(np.array(preview)).float() / 255.0
        assert (shown - small(vae, latent)).square().mean() < 0.003  # 25 dB


def test_linear_rgb_shows_the_picture(demo, samples):
    """The preview is the picture that the conditions see without a VAE."""
    model, _, vae, *_ = demo
    decoder = decoders.choose_decoder("auto", None, model.model.latent_format)
    assert decoder.kind == "linear_rgb"
    inner = model.model
    image = decoder.decode(inner.process_latent_out, inner.process_latent_in(samples[:1]))
    image = torch.nn.functional.avg_pool2d(image, 8)[0].movedim(0, -1)
    assert (image.clamp(0.0, 1.0) - small(vae, samples[:1])).square().mean() < 0.005


def small(vae, latent: torch.Tensor) -> torch.Tensor:
    """The decoded picture at the size of its latent, ``[h, w, 3]``."""
    with torch.inference_mode():
        image = vae.decode(latent).movedim(-1, 1)
    return torch.nn.functional.avg_pool2d(image, 8)[0].movedim(0, -1)


def test_same_seed_same_picture(demo, samples):
    assert torch.equal(sample(demo[0]), samples)
    assert not torch.equal(sample(demo[0], seed=2), samples)


def test_takes_a_lora(demo):
    model = demo[0]
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    width = model.model.state_dict()[keys[name]].shape[0]
    weights = {
        f"{name}.lora_up.weight": torch.randn(width, 2),
        f"{name}.lora_down.weight": torch.randn(2, width),
    }
    patched = model.clone()
    assert patched.add_patches(comfy.lora.load_lora(weights, keys)) == [keys[name]]
    before = sample(model, steps=2)
    assert not torch.equal(sample(patched, steps=2), before)
    assert torch.equal(sample(model, steps=2), before)


def test_can_be_copied_with_its_weights(demo, samples):
    """The host re-reads the file for training and for a second device."""
    model = demo[0]
    copy = model.clone(force_deepcopy=True)
    assert copy.model is not model.model
    assert torch.equal(sample(copy), samples)


@pytest.mark.parametrize("name", ["unet", "text_encoder", "autoencoder"])
def test_missing_weights_are_named(monkeypatch, tmp_path, name):
    missing = tmp_path / getattr(demo_model, f"{name.upper()}_FILE").name
    loader = getattr(demo_model, f"load_{name}")
    with pytest.raises(FileNotFoundError, match=f"'{missing.name}' is missing"):
        loader(missing)
    monkeypatch.setattr(loader, "__defaults__", (missing, *loader.__defaults__[1:]))
    with pytest.raises(FileNotFoundError, match="^Load Z-Magic Demo: the demo file"):
        ZMagicLoadDemo.execute()
