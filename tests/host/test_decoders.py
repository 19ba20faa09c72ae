"""The decoders of guidance show what the host's own decoders show, and say what is missing."""

from pathlib import Path

import comfy.latent_formats
import folder_paths
import numpy as np
import pytest
import torch
from latent_preview import Latent2RGBPreviewer
from safetensors.torch import save_file

from zmagic.host import decoders
from zmagic.host.decoders import choose_decoder
from zmagic.host.gradients import differentiable, normal

from . import architectures
from .derivatives import repeated

SD15, FLUX = comfy.latent_formats.SD15(), comfy.latent_formats.Flux()


@pytest.fixture(scope="module", params=["taesd", "kl_vae"])
def vae(request):
    with torch.inference_mode():
        return getattr(architectures, request.param)()


def latent(batch=2, channels=4):
    return torch.randn(batch, channels, 8, 8)


def test_vae_decoder_is_the_hosts_decode_with_a_gradient(vae):
    z = latent().to(vae.patcher.load_device)
    decoder = choose_decoder("auto", vae, SD15)
    with torch.inference_mode():
        expected = vae.decode(SD15.process_out(z)).movedim(-1, 1).to(z)
    with differentiable(None, [vae.first_stage_model]):
        z = normal(z).requires_grad_(True)
        image = decoder.decode(SD15.process_out, z)
        assert repeated(image, expected)
        (gradient,) = torch.autograd.grad(image.sum(), z)
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0.0
    assert decoder.patchers == (vae.patcher,)


def test_linear_decoder_is_the_hosts_preview_enlarged():
    z = 0.1 * latent(batch=1)  # small enough for the preview not to clip
    image = choose_decoder("auto", None, SD15).decode(SD15.process_out, z)
    previewer = Latent2RGBPreviewer(SD15.latent_rgb_factors, SD15.latent_rgb_factors_bias)
    preview = torch.tensor(np.array(previewer.decode_latent_to_preview(z))).float() / 255
    preview = preview.movedim(-1, 0)[None]
    enlarged = torch.nn.functional.interpolate(preview, size=(64, 64), mode="bilinear")
    assert (image - enlarged).abs().max() <= 1.5 / 255  # the preview has 256 levels


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("vae", "decoder 'vae' needs a VAE at the input 'vae', got none"),
        ("taesd", r"taesd_encoder.safetensors and taesd_decoder.safetensors in models/vae_approx"),
        ("vae_half", "decoder 'vae_half' needs a VAE at the input 'vae', got none"),
        ("crystal ball", "decoder must be one of auto, taesd, vae_half, vae, linear_rgb"),
    ],
)
def test_errors_say_what_is_missing(kind, message, monkeypatch, tmp_path):
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "vae_approx", ([str(tmp_path)], {".safetensors"})
    )
    with pytest.raises(ValueError, match=message):
        choose_decoder(kind, None, SD15)


def test_a_vae_of_another_model_is_refused():
    with torch.inference_mode():
        vae = architectures.taesd()
    with pytest.raises(ValueError, match="4 latent channels, but the model works with 16"):
        choose_decoder("auto", vae, FLUX)


@pytest.fixture
def installed_taesd(monkeypatch, tmp_path):
    """The two files of SD1.5's TAESD where the host looks for them."""
    with torch.inference_mode():
        weights = architectures.taesd().first_stage_model.state_dict()
    for part in ("encoder", "decoder"):
        own = {k.split(".", 1)[1]: v.clone() for k, v in weights.items() if f"taesd_{part}" in k}
        save_file(own, tmp_path / f"taesd_{part}.safetensors")
    folder_paths.filename_list_cache.clear()
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "vae_approx", ([str(tmp_path)], {".safetensors"})
    )
    yield
    folder_paths.filename_list_cache.clear()


def test_a_taesd_file_is_found_by_the_models_latent_format(installed_taesd):
    decoder = choose_decoder("auto", None, SD15)
    assert decoder.name(latent().shape) == "taesd"
    with torch.inference_mode():
        assert decoder.decode(SD15.process_out, latent()).shape == (2, 3, 64, 64)


def large_vae(monkeypatch):
    """A small VAE that counts as a large one."""
    monkeypatch.setattr(decoders, "TINY", 1)
    with torch.inference_mode():
        return architectures.kl_vae()


def test_auto_takes_an_installed_taesd_in_place_of_a_large_vae_and_says_so(
    installed_taesd, monkeypatch
):
    with torch.inference_mode():
        small = architectures.kl_vae()
    assert choose_decoder("auto", small, SD15).patchers == (small.patcher,)
    vae = large_vae(monkeypatch)
    decoder = choose_decoder("auto", vae, SD15)
    assert vae.patcher not in decoder.patchers
    assert decoder.name(latent().shape) == (
        "taesd (installed; it takes the place of the connected VAE)"
    )
    assert choose_decoder("vae", vae, SD15).patchers == (vae.patcher,)


def test_a_damaged_taesd_does_not_cost_the_run_that_has_a_vae(installed_taesd, monkeypatch):
    vae = large_vae(monkeypatch)
    for part in ("encoder", "decoder"):
        path = folder_paths.get_full_path("vae_approx", f"taesd_{part}.safetensors")
        Path(path).write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert choose_decoder("auto", vae, SD15).patchers == (vae.patcher,)


def test_packed_latents_are_decoded_whole(monkeypatch):
    """Flux 2 packs four pixels into the channels of one: their mean is no picture at half size."""
    with torch.inference_mode():
        vae = architectures.kl_vae()
    monkeypatch.setattr(decoders, "TINY", 1)
    monkeypatch.setattr(decoders.LatentFormat, "spacial_downscale_ratio", 16)
    decoder = choose_decoder("auto", vae, comfy.latent_formats.SD15())
    assert decoder.name((1, 4, 64, 64)) == "vae" and not decoder.halves((1, 4, 64, 64))


def test_auto_decodes_large_latents_at_half_size_by_a_large_vae(monkeypatch):
    vae = large_vae(monkeypatch)
    decoder = choose_decoder("auto", vae, SD15)
    small, large = torch.randn(1, 4, 8, 66), torch.randn(1, 4, 65, 66)
    device = vae.patcher.load_device
    with differentiable(None, [vae.first_stage_model]):
        for z, name, size in ((small, "vae", (64, 528)), (large, "vae_half", (256, 264))):
            z = normal(z).to(device).requires_grad_(True)
            image = decoder.decode(SD15.process_out, z)
            assert decoder.name(z.shape) == name and image.shape[-2:] == size
            (gradient,) = torch.autograd.grad(image.square().sum(), z)
            assert (gradient.abs().sum((0, 1)) > 0).all()  # no latent pixel is skipped
    # A smooth latent looks the same, only smaller.
    ramp = torch.linspace(-1, 1, 64).expand(1, 4, 64, 64).to(device)
    with torch.inference_mode():
        half = decoder.decode(SD15.process_out, ramp)
        whole = choose_decoder("vae", vae, SD15).decode(SD15.process_out, ramp)
    expected = torch.nn.functional.interpolate(whole, size=half.shape[-2:], mode="area")
    inner = (..., slice(16, -16), slice(16, -16))
    assert (half[inner] - expected[inner]).abs().mean() < 0.3 * expected[inner].std()


def test_a_video_latent_of_one_frame_is_halved(monkeypatch):
    z = torch.randn(2, 16, 1, 64, 80)
    assert decoders.halved(z).shape == (2, 16, 1, 32, 40)
    assert torch.allclose(decoders.halved(z)[:, :, 0], decoders.halved(z[:, :, 0]))


def test_more_than_one_frame_is_refused():
    with pytest.raises(ValueError, match="still images"):
        choose_decoder("linear_rgb", None, comfy.latent_formats.Wan21()).decode(
            lambda z: z, torch.randn(1, 16, 2, 8, 8)
        )
