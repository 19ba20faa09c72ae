"""What other nodes keep from step to step does not keep our graphs alive."""

import gc

import comfy.patcher_extension
import pytest
import torch
from nodes import common_ksampler

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import ReferenceImage
from zmagic.guidance.settings import preset
from zmagic.host.gradients import differentiable, normal
from zmagic.host.hooks import HostSettings, attach
from zmagic.lab.saved_bytes import SavedBytes

from . import architectures
from .derivatives import one_thread, relative
from .model_patching_nodes import call, model_patching_nodes


def _apg(model, kept):
    node = model_patching_nodes()["APG"]
    return call(node, model=model, eta=1.0, norm_threshold=5.0, momentum=0.5)


def _cache(name):
    def patch(model, kept):
        values = dict(reuse_threshold=0.2, start_percent=0.15, end_percent=0.95, verbose=False)
        return call(model_patching_nodes()[name], model=model, **values)

    return patch


def _keeping_predictions(model, kept):
    """Every prediction of the run is kept, as momentum, caches and previews do."""

    def post_cfg(args):
        kept.append(args["denoised"])
        return args["denoised"]

    model = model.clone()
    model.set_model_sampler_post_cfg_function(post_cfg)
    return model


def _keeping_residuals(model, kept):
    """The residual of the whole network is kept, as first-block caches do."""

    def wrapper(executor, x, *args, **kwargs):
        out = executor(x, *args, **kwargs)
        kept.append(out - x)
        return out

    model = model.clone()
    model.add_wrapper_with_key(
        comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "residual", wrapper
    )
    return model


def _keeping_attention(model, kept):
    """Attention maps, inputs of blocks and conditionings, as regional prompts and masks do."""

    def attend(q, k, v, options):
        kept.append((q, k, v))
        heads = options["n_heads"]
        return (
            torch.nn.functional.scaled_dot_product_attention(
                *(t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
            )
            .transpose(1, 2)
            .flatten(2)
        )

    def block(h, hsp, options):
        kept.append((h, hsp))
        h.register_hook(lambda grad: None)
        return h, hsp

    model = model.clone()
    model.set_model_attn2_replace(attend, "middle", 0)
    model.set_model_output_block_patch(block)
    return model


NEIGHBORS = {
    "none": lambda model, kept: model,
    "APG": _apg,
    "EasyCache": _cache("EasyCache"),
    "LazyCache": _cache("LazyCache"),
    "predictions": _keeping_predictions,
    "residuals": _keeping_residuals,
    "attention": _keeping_attention,
}


def _guided(specimen, model, steps: int) -> tuple[torch.Tensor, SavedBytes]:
    settings = HostSettings(preset("balanced", gradient_path="full", time_travel=1), "linear_rgb")
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    model = attach(model, (Condition("likeness", ReferenceImage(picture)),), settings)
    with torch.inference_mode(), one_thread(), SavedBytes().watching() as saved:
        samples = common_ksampler(
            *(model, 3, steps, 3.0, "euler", "normal", specimen.positive, specimen.negative),
            {"samples": torch.zeros_like(specimen.latent[:1])},
        )[0]["samples"]
    gc.collect()
    return samples, saved


@pytest.mark.parametrize("name", NEIGHBORS)
def test_memory_is_flat_in_steps_and_nothing_is_left(name):
    if name in ("APG", "EasyCache", "LazyCache") and name not in model_patching_nodes():
        pytest.skip("this host does not have it yet")
    with torch.inference_mode():
        specimen = architectures.sd15()
    peaks = []
    for steps in (2, 4, 8):
        kept: list = []
        samples, saved = _guided(specimen, NEIGHBORS[name](specimen.patcher, kept), steps)
        assert torch.isfinite(samples).all()
        assert saved.live == 0, f"{saved.live} bytes left after {steps} steps"
        peaks.append(saved.peak)
    print(f"\n{name}: peak MB {[f'{peak / 1e6:.1f}' for peak in peaks]}")
    assert peaks[0] > 1e5
    assert max(peaks) < 1.05 * peaks[0]


def test_a_backward_after_the_block_says_why_it_cannot_be():
    with torch.inference_mode():
        x, y = torch.randn(2, 5)
        with differentiable(None, []):
            point = normal(x).requires_grad_()
            kept = (point.sin() * y).exp()
            with differentiable(None, []):  # nested: nothing is dropped yet
                inner = point.exp()
            expected = kept.detach() * point.detach().cos() * y + point.detach().exp()
            found = torch.autograd.grad((kept + inner).sum(), point, retain_graph=True)[0]
            assert relative(found, expected) < 1e-6
        for graph in (kept, inner):
            with torch.inference_mode(False), pytest.raises(RuntimeError, match="dropped"):
                torch.autograd.grad(graph.sum(), point)


def test_enclosing_hooks_see_what_is_saved_and_may_move_it():
    """``save_on_cpu`` and the like, around a run."""
    moved = []

    def pack(tensor):
        moved.append(tensor.shape)
        return tensor.numpy(force=True).copy()

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, torch.from_numpy)
    with hooks, torch.inference_mode(), differentiable(None, []):
        x = normal(torch.randn(5)).requires_grad_()
        y = x * 2
        z = y.square()
        y.zero_()
        (g,) = torch.autograd.grad(z.sum(), x)
    assert moved
    assert torch.equal(g, 8 * x.detach())
