"""Fast or small: what is taken, what the host is asked for, and what a lack of memory leads to."""

from dataclasses import replace

import comfy.model_management
import pytest
import torch

from zmagic.guidance.settings import preset
from zmagic.host import tiles
from zmagic.host.decoders import choose_decoder
from zmagic.host.hooks import HostSettings, attach
from zmagic.host.memory import need_of
from zmagic.lab.saved_bytes import SavedBytes

from . import architectures
from .derivatives import relative
from .test_hooks import conditions, sample

GUIDANCE = preset("balanced", time_travel=1, strength=0.1)
FAST, SMALL, AUTO = (HostSettings(GUIDANCE, "vae", each) for each in ("fast", "small", "auto"))


@pytest.fixture(scope="module")
def specimen():
    with torch.inference_mode():
        return architectures.sd15()


@pytest.fixture(scope="module")
def vae():
    with torch.inference_mode():
        return architectures.kl_vae()


def guided(specimen, vae, settings, *, patch=None, conds=None, steps=2):
    """The samples, the trace, and the bytes saved at most."""
    traces = []
    model = specimen.patcher.clone()
    if patch is not None:
        model.set_model_attn1_output_patch(patch)
    conds = conditions() if conds is None else conds
    model = attach(model, conds, settings, vae, traces.append)
    modules = torch.nn.ModuleList([specimen.patcher.model, vae.first_stage_model])
    with SavedBytes(modules).watching() as saved:
        samples = sample(specimen, model, batch=1, steps=steps)
    assert saved.live == 0
    return samples, traces[0], saved.peak


@pytest.fixture(scope="module")
def fast(specimen, vae):
    return guided(specimen, vae, FAST)


def _need(specimen, vae):
    model = specimen.patcher.model
    decoder = choose_decoder("vae", vae, specimen.patcher.get_model_object("latent_format"))
    return need_of(model, decoder, (1, *specimen.latent.shape[1:]), 2)


def test_small_is_the_same_picture_in_less_memory(specimen, vae, fast):
    samples, trace, peak = guided(specimen, vae, SMALL)
    assert trace.settings["memory"] == "small" and fast[1].settings["memory"] == "fast"
    assert relative(samples, fast[0]) < 1e-5
    assert peak < 0.6 * fast[2]
    assert trace.totals()["forwards"] == fast[1].totals()["forwards"]
    assert not trace.warnings


@pytest.mark.parametrize(("share", "taken"), [(1.01, "fast"), (0.99, "small")])
def test_auto_goes_by_the_free_memory(specimen, vae, fast, monkeypatch, share, taken):
    free = share * _need(specimen, vae).fast
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *args, **kwargs: free)
    samples, trace, peak = guided(specimen, vae, AUTO)
    assert trace.settings["memory"] == f"auto ({taken})"
    assert (peak < 0.6 * fast[2]) == (taken == "small")
    assert relative(samples, fast[0]) < 1e-5


def test_what_a_smoothed_look_decodes_at_once_needs_its_memory(specimen, vae, monkeypatch):
    free = 1.01 * _need(specimen, vae).fast
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *args, **kwargs: free)
    for smoothing, taken in ((0.0, "fast"), (0.1, "small")):
        guidance = replace(GUIDANCE, smoothing=smoothing, smoothing_samples=4)
        settings = replace(AUTO, guidance=guidance)
        trace = guided(specimen, vae, settings, steps=1)[1]
        assert trace.settings["memory"] == f"auto ({taken})"


def test_the_host_is_asked_for_the_room_of_a_gradient(specimen, vae, monkeypatch):
    asked = []
    load = comfy.model_management.load_models_gpu

    def watched(models, memory_required=0, **options):
        asked.append((memory_required, options["minimum_memory_required"]))
        return load(models, memory_required, **options)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", watched)
    need = _need(specimen, vae)
    measuring = replace(FAST, guidance=preset("balanced", strength=0.0))
    for settings in (FAST, SMALL, AUTO, measuring):
        guided(specimen, vae, settings, steps=1)
    fast, small, auto, plain = asked
    # Rounded up to whole batches, which the host reckons with.
    assert need.fast <= fast[1] - plain[1] <= need.fast + plain[1]
    assert need.small <= small[1] - plain[1] <= need.small + plain[1]
    assert auto == small < fast and small[0] == 2 * small[1]


def test_small_without_effect_is_said(specimen, vae):
    settings = HostSettings(replace(GUIDANCE, dependence="exact"), "vae", "small")
    _, trace, _ = guided(specimen, vae, settings, steps=1)
    assert trace.settings["memory"] == "small (fast)"
    assert any("'small' has no effect" in warning for warning in trace.warnings)


def test_a_neighbor_that_counts_its_calls_counts_those_of_the_first_pass(specimen, vae):
    counted = []
    for settings in (FAST, SMALL):
        counts = {"calls": 0}

        def patch(n, options, counts=counts):
            counts["calls"] += 1
            return n

        guided(specimen, vae, settings, patch=patch)
        counted.append(counts["calls"])
    assert counted[0] == counted[1] > 0


class _Short:
    """A device that runs out of memory so many times, when a gradient is wanted at some place."""

    def __init__(self, times):
        self.times = times
        self.failures = []  # a list: what else is in it would be put back after a failure

    def fail(self, *_):
        if len(self.failures) < self.times:
            self.failures.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory")

    def forward(self, n, *_):
        if n.requires_grad:
            self.fail()
        return n

    def backward(self, n, *_):
        if n.requires_grad:
            n.register_hook(self.fail)
        return n


def short_of_memory(specimen, vae, stage, backward, times):
    """The samples and the trace of a run on such a device, which leaves the model as it was."""
    device = _Short(times)
    act = device.backward if backward else device.forward
    before = [dict(vars(module)) for module in specimen.patcher.model.modules()]
    conds, handle = conditions(), None
    if stage == "energy":
        energy = conds[0].energy
        conds = (replace(conds[0], energy=lambda i, r: energy(act(i), r)), conds[1])
    if stage == "decoder":
        middle = vae.first_stage_model.decoder.mid.block_1
        handle = middle.register_forward_hook(lambda module, args, out: act(out))
    try:
        patch = act if stage == "denoiser" else None
        samples, trace, _ = guided(specimen, vae, FAST, patch=patch, conds=conds)
    finally:
        if handle is not None:
            handle.remove()
        assert [dict(vars(module)) for module in specimen.patcher.model.modules()] == before
    assert len(device.failures) == times
    return samples, trace


BACKWARD = pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
STAGES = pytest.mark.parametrize("stage", ["denoiser", "decoder", "energy"])


@BACKWARD
@STAGES
def test_a_lack_of_memory_makes_the_run_small(specimen, vae, fast, stage, backward):
    samples, trace = short_of_memory(specimen, vae, stage, backward, 1)
    assert trace.settings["memory"] == "fast (small)"
    (warning,) = trace.warnings
    assert "not enough memory" in warning and "second time" in warning
    assert {record.path for record in trace.steps} == {"image"}
    assert relative(samples, fast[0]) < 1e-5


@pytest.fixture(scope="module")
def small_tiles():
    """Tiles of which the small picture has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "SIDE", 5)
        patch.setattr(tiles, "SHARED", 2)
        yield


@pytest.fixture(scope="module")
def in_tiles(specimen, vae, small_tiles):
    return guided(specimen, vae, replace(FAST, memory="tiled"))


@BACKWARD
@STAGES
def test_then_the_picture_is_decoded_in_tiles(specimen, vae, fast, in_tiles, stage, backward):
    samples, trace = short_of_memory(specimen, vae, stage, backward, 2)
    assert trace.settings["memory"] == "fast (tiled)"
    assert "second time" in trace.warnings[0] and "overlapping tiles" in trace.warnings[1]
    assert len(trace.warnings) == 2
    assert {record.path for record in trace.steps} == {"image"}
    assert relative(samples, in_tiles[0]) < 1e-5
    assert 1e-5 < relative(samples, fast[0]) < 0.1
    assert in_tiles[2] < 0.6 * fast[2]


@BACKWARD
@STAGES
def test_then_it_is_guided_behind_the_model(specimen, vae, small_tiles, stage, backward):
    samples, trace = short_of_memory(specimen, vae, stage, backward, 3)
    assert trace.settings["memory"] == "fast (tiled)"
    assert len(trace.warnings) == 3 and "image_no_backprop" in trace.warnings[2]
    assert {record.path for record in trace.steps} == {"image_no_backprop"}
    assert torch.isfinite(samples).all()


def test_a_picture_of_one_tile_is_not_decoded_in_tiles(specimen, vae, monkeypatch):
    monkeypatch.setattr(tiles, "SIDE", 48)
    _, trace = short_of_memory(specimen, vae, "decoder", False, 2)
    assert trace.settings["memory"] == "fast (small)"
    assert "image_no_backprop" in trace.warnings[1]
