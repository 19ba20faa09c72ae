"""Guided runs beside other packs' wrappers, in graphs that sample more than once."""

import comfy.patcher_extension
import pytest
import torch
from nodes import common_ksampler

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import ReferenceImage
from zmagic.guidance.settings import preset
from zmagic.host.hooks import HostSettings, attach

from . import architectures
from .derivatives import one_thread

KEY = comfy.patcher_extension.WrappersMP.PREDICT_NOISE
SETTINGS = HostSettings(preset("balanced", gradient_path="full", time_travel=1), "linear_rgb")


@pytest.fixture(scope="module")
def specimen():
    with torch.inference_mode():
        return architectures.sd15()


def _attached(model, traces):
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    condition = Condition("likeness", ReferenceImage(picture))
    return attach(model, (condition,), SETTINGS, on_finish=traces.append)


def _sample(specimen, model, latent, steps=2, seed=3, **options):
    with torch.inference_mode(), one_thread():
        return common_ksampler(
            *(model, seed, steps, 3.0, "euler", "normal", specimen.positive, specimen.negative),
            {"samples": latent},
            **options,
        )[0]["samples"]


def _writing_into_its_input(executor, x, timestep, model_options=None, seed=None):
    x *= 0.98
    return executor(x, timestep, model_options, seed)


def _writing_into_the_result(executor, x, timestep, model_options=None, seed=None):
    return executor(0.98 * x, timestep, model_options, seed).mul_(1.1)


def _asking_twice(executor, x, timestep, model_options=None, seed=None):
    first = executor(x, timestep, model_options, seed)
    return first + 0.1 * (first - executor(0.9 * x, timestep, model_options, seed))


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize(
    "wrapper", [_writing_into_its_input, _writing_into_the_result, _asking_twice]
)
def test_another_wrapper_of_the_prediction(wrapper, outside, specimen):
    traces = []

    def add(model):
        model = model.clone()
        model.add_wrapper_with_key(KEY, "neighbor", wrapper)
        return model

    model = specimen.patcher
    # The host calls the wrappers in the order in which they were added: the first is outermost.
    model = _attached(add(model), traces) if outside else add(_attached(model, traces))
    latent = torch.zeros(1, 4, 8, 8)
    samples = _sample(specimen, model, latent)
    assert torch.isfinite(samples).all()
    assert torch.equal(_sample(specimen, model, latent), samples)
    assert not torch.equal(samples, _sample(specimen, add(specimen.patcher), latent))
    for trace in traces:
        assert not trace.warnings
        assert {step.path for step in trace.steps} == {"full"}


def test_sampling_several_times_in_one_node(specimen):
    """Detailers do it: one MODEL, one latent after the other, of other sizes."""
    traces = []
    model = _attached(specimen.patcher, traces)
    sizes = ((8, 8), (8, 12), (6, 8), (8, 8))
    latents = [torch.zeros(1, 4, *size) for size in sizes]
    together = [_sample(specimen, model, latent, denoise=0.6) for latent in latents]
    assert len(traces) == len(sizes)
    assert torch.equal(together[0], together[3])
    for latent, samples in zip(latents, together, strict=True):
        alone = _sample(specimen, _attached(specimen.patcher, []), latent, denoise=0.6)
        assert samples.shape == latent.shape
        assert torch.equal(samples, alone)


def test_tiles_of_other_shapes_in_each_prediction(specimen):
    """A wrapper outside ours splits the latent: each tile is guided like a picture of its own."""
    traces = []

    def tiles(executor, x, timestep, model_options=None, seed=None):
        left = executor(x[..., :8], timestep, model_options, seed)
        right = executor(x[..., 6:], timestep, model_options, seed)
        return torch.cat([left, right[..., 2:]], -1)

    model = specimen.patcher.clone()
    model.add_wrapper_with_key(KEY, "neighbor", tiles)
    latent = torch.zeros(1, 4, 8, 12)
    samples = _sample(specimen, _attached(model, traces), latent)
    assert samples.shape == latent.shape and torch.isfinite(samples).all()
    assert not torch.equal(samples, _sample(specimen, model, latent))
    assert len(traces[0].steps) == 4
