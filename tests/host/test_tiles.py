"""Decodes in tiles: joined without a seam, differentiated exactly, one tile in memory at a time."""

import pytest
import torch
from torch import Tensor

from zmagic.host import tiles
from zmagic.host.checkpointing import plainly
from zmagic.host.demo_model import load_autoencoder, load_photograph
from zmagic.host.gradients import differentiable, normal
from zmagic.host.tiles import has_tiles, in_tiles
from zmagic.lab.saved_bytes import SavedBytes

from . import architectures
from .derivatives import one_thread, relative


def enlarged(latent: Tensor) -> Tensor:
    """A decoder that sees one pixel."""
    return latent.repeat_interleave(3, -1).repeat_interleave(3, -2)


def test_what_a_decoder_sees_in_every_tile_is_joined_to_the_whole_at_every_size():
    for height, width in [*((1, n) for n in range(1, 200)), (150, 7), (97, 130)]:
        latent = torch.rand(2, 1, 1, height, width)
        seen: list[torch.Size] = []

        def decode(part: Tensor, seen=seen) -> Tensor:
            seen.append(part.shape)
            return enlarged(part)

        joined = in_tiles(decode, latent, plainly)
        torch.testing.assert_close(joined, enlarged(latent))
        (shape,) = set(seen)  # the same for all: one choice of kernels
        assert shape[0] == 1 and max(shape[-2:]) <= tiles.SIDE
        assert has_tiles(latent.shape) and has_tiles(latent[:1].shape) == (len(seen) > 2)


@pytest.fixture(scope="module")
def network():
    with torch.inference_mode():
        return architectures.kl_vae().first_stage_model


def _gradient(network, latent: Tensor, *, in_blocks: bool, whole: bool = False):
    """The picture, the gradient of a curved energy of it, and the bytes saved at most."""
    with (
        SavedBytes(network).watching() as saved,
        differentiable(None, [network], checkpoint=in_blocks) as call,
    ):
        start = normal(latent).requires_grad_(True)
        picture = network.decode(start) if whole else in_tiles(network.decode, start, call)
        energy = (picture - picture.detach().flip(-1)).square().sum()
        (gradient,) = torch.autograd.grad(energy, start)
    assert saved.live == 0
    return picture.detach(), gradient, saved.peak


def test_the_gradient_is_that_of_the_decode_in_tiles_and_one_tile_is_saved(network, monkeypatch):
    monkeypatch.setattr(tiles, "SIDE", 16)
    monkeypatch.setattr(tiles, "SHARED", 4)
    latent = torch.randn(2, 4, 20, 28, generator=torch.manual_seed(0))
    with one_thread():
        reference, expected, plain = _gradient(network, latent, in_blocks=False)
        picture, gradient, peak = _gradient(network, latent, in_blocks=True)
        *_, small = _gradient(network, latent, in_blocks=True, whole=True)
        *_, one_tile = _gradient(network, latent[:1, :, :12, :16], in_blocks=False, whole=True)
    assert torch.equal(picture, reference)
    assert relative(gradient, expected) < 1e-6
    assert peak < 1.2 * one_tile and peak < 0.4 * small and peak < 0.15 * plain


def test_a_trained_decoder_shows_in_tiles_what_it_shows_at_once():
    vae = load_autoencoder()
    network, device = vae.first_stage_model, vae.patcher.load_device
    row = torch.cat([load_photograph(), load_photograph().flip(2)], 2)
    with torch.inference_mode():
        latent = vae.encode(torch.cat([row, row.flip(1)], 1)).to(device)
        whole = network.decode(latent)
        joined = in_tiles(network.decode, latent, plainly)
    error = (joined - whole).abs()
    print(f"\nof a contrast of {whole.std():.2f}: {error.mean():.1e}, at most {error.max():.1e}")
    assert has_tiles(latent.shape) and error.mean() < 0.01 * whole.std()
