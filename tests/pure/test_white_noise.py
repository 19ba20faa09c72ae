"""The spectral set of white noise: its two norms, the nearest point, what has none."""

import math

import pytest
import torch

from zmagic.guidance.white_noise import BLOCK, whitened

SHAPES = [(3, 4, 16, 16), (2, 16, 1, 8, 8), (2, 4, 9, 13)]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def blocks_of(x: torch.Tensor) -> torch.Tensor:
    """Magnitudes of the whole blocks of each sample, by the definition of the set."""
    full = torch.fft.fft(x.flatten(1).double(), norm="ortho")
    half = full.shape[1] // 2
    ends = torch.complex(full[:, 0].real, full[:, half].real) / math.sqrt(2.0)
    spectrum = torch.cat([ends[:, None], full[:, 1:half]], dim=1).abs()
    whole = spectrum.shape[1] // BLOCK * BLOCK
    return spectrum[:, :whole].unflatten(1, (-1, BLOCK))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colored", [False, True])
def test_every_block_has_the_two_norms(shape, colored):
    x = normal(*shape)
    x = x.cumsum(-1).cumsum(-2) if colored else x
    found = blocks_of(whitened(x))
    wanted = torch.full(found.shape[:2], math.sqrt(math.pi) / 2.0 * BLOCK, dtype=torch.float64)
    assert torch.allclose(found.sum(-1), wanted, rtol=1e-4)
    assert torch.allclose(found.square().sum(-1), torch.full_like(wanted, BLOCK), rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_is_nearly_there_and_what_is_there_stays(shape):
    x = normal(*shape)
    once = whitened(x)
    cosine = torch.cosine_similarity(x.flatten(1), once.flatten(1))
    assert (cosine > 0.97).all()  # larger noise is nearer: 0.988 at least, says the paper
    assert torch.allclose(whitened(once), once, atol=2e-3)


def test_no_other_member_of_the_set_is_nearer():
    x = normal(1, 4, 16, 16) * (1.0 + normal(1, 4, 16, 16, seed=1).abs())
    nearest = (x - whitened(x)).norm()
    for seed in range(2, 22):
        other = whitened(x + 0.3 * normal(*x.shape, seed=seed))
        assert (x - other).norm() >= nearest


def test_each_sample_is_by_itself():
    x = normal(3, 4, 8, 8)
    assert torch.allclose(whitened(x)[1:2], whitened(x[1:2]), atol=1e-6)


def test_a_direction_that_is_one_pattern_becomes_noise_that_still_leads_there():
    """A block of one frequency alone: the others of it have no phase, and stay without."""
    ramp = torch.linspace(-1.0, 1.0, 16).expand(1, 4, 16, 16)
    white = whitened(ramp)
    assert torch.isfinite(white).all()
    assert (ramp * white).sum() > 0.0
    largest = blocks_of(white).square().amax()
    assert largest < 0.1 * blocks_of(ramp / ramp.square().mean().sqrt()).square().amax()


def test_nothing_stays_nothing():
    assert not whitened(torch.zeros(2, 4, 8, 8)).any()
