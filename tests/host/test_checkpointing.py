"""Gradients through blocks that run again in the backward pass, against those that save all."""

import pytest
import torch

from zmagic.host.blocks import repeated_blocks
from zmagic.lab.saved_bytes import SavedBytes

from . import architectures
from .derivatives import relative, sample


@pytest.mark.parametrize("name", architectures.DIFFUSION)
def test_every_architecture(name):
    with torch.inference_mode():
        specimen = architectures.DIFFUSION[name]()
    print(name, [type(b).__name__ for b in repeated_blocks([specimen.patcher.model])])

    def probe(evaluation):
        gradients, peaks = [], []
        for checkpoint in (False, True):
            with SavedBytes(specimen.patcher.model).watching() as saved:
                gradients.append(evaluation.gradient(evaluation.x, checkpoint=checkpoint))
            peaks.append(saved.peak)
            assert saved.live == 0
        return relative(gradients[1], gradients[0]), peaks

    _, (error, peaks) = sample(specimen, probe)
    print(f"{name} {error:.1e} {peaks}")
    assert error < 1e-5
