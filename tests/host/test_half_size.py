"""Gradients through a decoder at half size, against those through the whole one."""

import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import ReferenceImage
from zmagic.host.decoders import halved
from zmagic.host.demo_model import LAYOUT_FILE, WOMAN_FILE, load_autoencoder
from zmagic.lab.half_gradients import compared, gradients, half_and_whole, picture

pytestmark = pytest.mark.lab


def test_a_gradient_that_came_through_half_is_one_that_half_can_carry():
    latent = torch.randn(1, 4, 12, 10, generator=torch.manual_seed(0), requires_grad=True)
    (coarse,) = torch.autograd.grad(halved(latent).square().sum(), latent)
    assert compared(coarse, coarse) == pytest.approx((1.0, 1.0, 1.0), abs=1e-5)
    fine = torch.randn(latent.shape, generator=torch.manual_seed(1))
    found = compared(coarse, coarse + fine)
    direct = torch.nn.functional.cosine_similarity(coarse.flatten(), (coarse + fine).flatten(), 0)
    assert found.cosine == pytest.approx(float(direct), abs=1e-5)
    assert found.cosine == pytest.approx(found.share * found.agreement) and found.share < 0.95


def test_a_trained_decoder_keeps_the_gradient_of_a_smooth_energy():
    with torch.inference_mode():
        vae = load_autoencoder()
        latent = vae.encode(picture(WOMAN_FILE, 128).movedim(1, -1))
    wanted = [Condition("reference", ReferenceImage(picture(LAYOUT_FILE, 128), 0.1))]
    (half,), (whole,) = (gradients(each, latent, wanted) for each in half_and_whole(vae))
    assert compared(half, whole).cosine > 0.8
