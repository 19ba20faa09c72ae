"""Guidance on top of edit models, which see reference pictures: Flux Kontext and Qwen-Image-Edit.

The references are latents at the conditioning, as ReferenceLatent and TextEncodeQwenImageEditPlus
leave them there.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from node_helpers import conditioning_set_values

from zmagic.host.memory import evaluations_of

from . import architectures
from .architectures import Specimen
from .derivatives import relative, sample
from .placements import ended

PLACEMENTS = ("balanced", "few steps")  # through the model, and behind it


def with_references(specimen: Specimen, count: int = 1) -> Specimen:
    """The specimen, its conditionings with references of the size of its latent."""
    generator = torch.Generator().manual_seed(8)
    latents = list(torch.randn(count, *specimen.latent.shape, generator=generator))
    conds = [
        conditioning_set_values(cond, {"reference_latents": latents}, append=True)
        for cond in (specimen.positive, specimen.negative)
    ]
    return replace(specimen, positive=conds[0], negative=conds[1])


@pytest.fixture(scope="module", params=["flux", "qwen_image"])
def plain(request):
    with torch.inference_mode():
        return architectures.DIFFUSION[request.param]()


@pytest.fixture(scope="module")
def referring(plain):
    with torch.inference_mode():
        return with_references(plain)


def test_gradients_beside_a_reference(plain, referring):
    def probe(evaluation):
        whole = evaluation.gradient(evaluation.x)
        again = evaluation.gradient(evaluation.x, checkpoint=True)
        return evaluation.gradient_error(), relative(again, whole)

    found, (error, checkpointed) = sample(referring, probe)
    assert error < 1e-3 and checkpointed < 1e-5
    assert relative(found, sample(plain)[0]) > 1e-3  # the reference has its effect
    assert torch.equal(sample(referring)[0], found)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_guidance_and_the_reference_act_both(plain, referring, name):
    (samples, final), (_, unguided) = ended(referring, name, 0.2), ended(referring, name, 0.0)
    assert all(final[key] < unguided[key] for key in final), (final, unguided)
    assert relative(samples, ended(plain, name, 0.2)[0]) > 1e-3


def test_a_reference_needs_the_memory_of_its_picture(plain):
    """As the host reckons it for a forward: a picture more for each reference of its size."""
    for count in (1, 2):
        [[_, values]] = with_references(plain, count).positive
        guider = SimpleNamespace(
            model_patcher=plain.patcher, conds={"positive": [values], "negative": [{}]}, cfg=3.0
        )
        shape = (2, *plain.latent.shape[1:])
        assert evaluations_of(guider, shape) == pytest.approx(2 + count)
