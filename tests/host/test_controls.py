"""ControlNets and their like under guidance: derivatives, memory, and what each of both does."""

from dataclasses import replace

import comfy.controlnet
import comfy.ldm.modules.attention as host_attention
import pytest
import torch

from zmagic.host.controls import control_share
from zmagic.lab.operations import META
from zmagic.lab.random_models import SD15, SDXL
from zmagic.lab.saved_bytes import SavedBytes
from zmagic.lab.subjects import denoiser_work

from . import architectures
from .controls import CONTROLS, control_net_of, with_control
from .derivatives import relative, sample
from .placements import PLACEMENTS, ended


@pytest.fixture(scope="module", params=CONTROLS)
def controlled(request):
    """A specimen with a control of each kind; its conditionings without; the control."""
    family, build = CONTROLS[request.param]
    with torch.inference_mode():
        specimen = architectures.DIFFUSION[family]()
        positive, negative = with_control(specimen, build(specimen))
    return replace(specimen, positive=positive, negative=negative), specimen


def test_gradients_come_through_the_control(controlled):
    specimen, plain = controlled

    def probe(evaluation):
        error = evaluation.gradient_error()
        gradients, peaks = [], []
        for checkpoint in (False, True):
            with SavedBytes(evaluation.guider.inner_model).watching() as saved:
                gradients.append(evaluation.gradient(evaluation.x, checkpoint=checkpoint))
            peaks.append(saved.peak)
        return error, relative(*gradients), peaks

    found, (error, checkpointed, peaks) = sample(specimen, probe)
    print(f"\ngradient {error:.1e}, checkpointed {checkpointed:.1e}, saved {peaks}")
    assert error < 1e-3 and checkpointed < 1e-5
    assert peaks[1] < 0.7 * peaks[0]
    assert relative(found, sample(plain)[0]) > 1e-3  # the control has its effect
    assert torch.equal(sample(specimen)[0], found)  # and differentiating left nothing behind


@pytest.mark.parametrize("name", PLACEMENTS)
def test_guidance_and_the_control_act_both(controlled, name):
    specimen, plain = controlled

    (samples, final), (_, unguided) = ended(specimen, name, 0.3), ended(specimen, name, 0.0)
    assert all(final[key] < unguided[key] for key in final), (final, unguided)
    assert relative(samples, ended(plain, name, 0.3)[0]) > 1e-3
    assert torch.equal(ended(specimen, name, 0.3)[0], samples)


@pytest.mark.parametrize(
    "kind", [SD15, pytest.param(SDXL, marks=pytest.mark.slow)], ids=lambda kind: kind.title
)
def test_the_estimate_is_what_is_saved_with_a_control(kind):
    """At real sizes: how much more than without, and what is reckoned."""
    net = control_net_of(kind)
    controlled, plain = denoiser_work(kind, net), denoiser_work(kind)
    control = comfy.controlnet.ControlNet(net, load_device=META)
    share = 1 + control_share({"control": control}, kind.built(kind.dtype, META).diffusion_model)
    for way in ("saved", "checkpointed"):
        more = getattr(controlled, way) / getattr(plain, way)
        print(f"{kind.title} {way}: {more:.2f} times as much, reckoned {share:.2f}")
        assert more <= 1.2 * share and share <= 1.3 * more


@pytest.mark.parametrize("name", ["SDXL", "Flux"])
def test_a_control_has_its_derivative_under_inference_kernels(kernel_without_derivative, name):
    """The host does not hand a control the options by which it replaces attention elsewhere."""
    family, build = CONTROLS[name]
    with torch.inference_mode():
        specimen = architectures.DIFFUSION[family]()
        conds = with_control(specimen, build(specimen))
    _, error = sample(specimen, lambda evaluation: evaluation.gradient_error(), conds=conds)
    assert error < 1e-3
    assert host_attention.optimized_attention is kernel_without_derivative
