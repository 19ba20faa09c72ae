"""Image prompts of other packs, which replace cross attention, together with guidance."""

import importlib.util
import sys
from dataclasses import replace

import comfy.ldm.modules.attention as host_attention
import pytest
import torch

from zmagic.host.attention import NAMES, differentiable_by_name

from . import architectures
from .architectures import CONTEXT
from .attention_patches import BLOCKS, patched
from .derivatives import relative, sample
from .placements import PLACEMENTS, ended


@pytest.fixture(scope="module", params=BLOCKS)
def specimens(request):
    """A specimen without a picture's tokens, and one with them."""
    with torch.inference_mode():
        plain = architectures.DIFFUSION[request.param]()
        model = patched(plain.patcher, BLOCKS[request.param], CONTEXT)
    return plain, replace(plain, patcher=model)


def test_gradients_come_through_the_patch(specimens):
    plain, prompted = specimens

    def probe(evaluation):
        whole = evaluation.gradient(evaluation.x)
        again = evaluation.gradient(evaluation.x, checkpoint=True)
        return evaluation.gradient_error(), relative(again, whole)

    found, (error, checkpointed) = sample(prompted, probe)
    print(f"\ngradient {error:.1e}, checkpointed {checkpointed:.1e}")
    assert error < 1e-3 and checkpointed < 1e-5
    assert relative(found, sample(plain)[0]) > 1e-3  # the patch has its effect
    assert torch.equal(sample(prompted)[0], found)  # and differentiating left nothing behind


@pytest.mark.usefixtures("kernel_without_derivative")
def test_a_patch_has_its_derivative_under_inference_kernels(specimens):
    """It calls the host's attention by its name, without the options that replace it elsewhere."""
    _, error = sample(specimens[1], lambda evaluation: evaluation.gradient_error())
    assert error < 1e-3


@pytest.mark.usefixtures("kernel_without_derivative")
def test_modules_that_wait_for_their_first_use_go_on_waiting(monkeypatch, tmp_path):
    """Packages load optional ones that way, which may be slow, or fail."""
    file = tmp_path / "waiting_module.py"
    file.write_text("raise ImportError('a part of it is missing')")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    waiting = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(waiting)
    monkeypatch.setitem(sys.modules, file.stem, waiting)
    with differentiable_by_name():
        assert host_attention.optimized_attention is host_attention.attention_pytorch
    with pytest.raises(ImportError, match="a part of it"):
        _ = waiting.anything


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_chosen_attention_is_back_after_an_error(kernel_without_derivative, error):
    with pytest.raises(error), differentiable_by_name():
        raise error
    for name in NAMES:
        assert getattr(host_attention, name) is kernel_without_derivative


@pytest.mark.parametrize("name", PLACEMENTS)
def test_guidance_and_the_patch_act_both_and_repeat_exactly(specimens, name):
    plain, prompted = specimens

    (samples, final), (_, unguided) = ended(prompted, name, 0.3), ended(prompted, name, 0.0)
    assert all(final[key] < unguided[key] for key in final), (final, unguided)
    assert relative(samples, ended(plain, name, 0.3)[0]) > 1e-3
    assert torch.equal(ended(prompted, name, 0.3)[0], samples)
