"""Beside every node of the host that patches a model: the gradient is that of what it computes."""

import gc
from dataclasses import replace
from functools import cache

import pytest
import torch
from nodes import common_ksampler

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import ReferenceImage
from zmagic.guidance.settings import preset
from zmagic.host.hooks import HostSettings, attach

from . import architectures
from .derivatives import one_thread, relative, sample
from .model_patching_nodes import call, model_patching_nodes, patched

FAMILIES = ("sd15", "flux")
STEPS = (3e-3, 3e-4, 1e-4)  # of the difference quotients
WRITING = ("FreeU_V2", "NAGuidance")  # they write into tensors that autograd has saved


def pytest_generate_tests(metafunc):
    if "node" in metafunc.fixturenames:
        metafunc.parametrize("node", model_patching_nodes())


@pytest.fixture(scope="module", autouse=True)
def _frozen():
    """The host collects garbage for every model that has gone: it need not look at its modules."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def specimens():
    """Return for each family a model and one with weights a tenth as large to merge it with."""
    with torch.inference_mode():
        built = {}
        for family in FAMILIES:
            model, other = (architectures.DIFFUSION[family]() for _ in range(2))
            architectures.random_weights(other.patcher.model.diffusion_model, seed=9)
            for weight in other.patcher.model.diffusion_model.parameters():
                weight.mul_(0.1)
            built[family] = model, other
        return built


@pytest.fixture(scope="module")
def beside(specimens):
    """Node name -> family -> specimen with the node's patch, of the families that it runs on."""

    @cache
    def build(node: str) -> dict[str, architectures.Specimen]:
        found = {}
        for family, (specimen, other) in specimens.items():
            try:
                with torch.inference_mode():
                    model = patched(model_patching_nodes()[node], specimen, other)
                sample(replace(specimen, patcher=model))
            except Exception as exception:  # the node's own: none of our code has run
                print(f"\n{node} does not run on {family}: {exception}")
            else:
                found[family] = replace(specimen, patcher=model)
        return found

    return build


def test_the_hosts_nodes_are_found():
    assert len(model_patching_nodes()) > 40
    assert {"FreeU", "FreeU_V2", "SelfAttentionGuidance", "RescaleCFG"} <= {*model_patching_nodes()}


def test_gradient_is_that_of_the_patched_prediction(node, beside):
    if not beside(node):
        pytest.skip("does not run on these models, without us either")
    for family, specimen in beside(node).items():
        _, error = sample(specimen, lambda e: e.gradient_error(*STEPS))
        print(f"\n{node} on {family}: gradient {error:.1e}")
        assert error < 1e-3, family


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("FreeU_V2", dict(b1=1.3, b2=1.4, s1=0.9, s2=0.2)),
        # It clips what is larger than this; at the kinks of that there is no second derivative.
        ("NAGuidance", dict(nag_scale=5.0, nag_alpha=0.5, nag_tau=100.0)),
    ],
)
def test_second_derivatives_beside_patches_that_write_in_place(name, values, specimens):
    if name not in model_patching_nodes():
        pytest.skip("this host does not have it yet")
    specimen, _ = specimens["sd15"]
    with torch.inference_mode():
        model = call(model_patching_nodes()[name], model=specimen.patcher, **values)
    _, error = sample(replace(specimen, patcher=model), lambda e: e.hessian_error())
    print(f"\n{name}: hessian {error:.1e}")
    assert error < 2e-3


@pytest.mark.parametrize("name", WRITING)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-2), (torch.bfloat16, 1e-1)])
def test_half_precision_beside_patches_that_write_in_place(name, dtype, tolerance):
    """No difference quotient here; the gradient of the same weights in full precision instead."""
    if name not in model_patching_nodes():
        pytest.skip("this host does not have it yet")
    found = {}
    for compute in (dtype, torch.float32):
        with torch.inference_mode():
            specimen = architectures.sd15(dtype, compute)
            model = patched(model_patching_nodes()[name], specimen, specimen)
        _, found[compute] = sample(replace(specimen, patcher=model), lambda e: e.gradient(e.x))
    assert relative(found[dtype], found[torch.float32]) < tolerance


def _guided(specimen, model):
    with torch.inference_mode(), one_thread():
        return common_ksampler(
            *(model, 3, 1, 3.0, "euler", "normal", specimen.positive, specimen.negative),
            {"samples": torch.zeros_like(specimen.latent[:1])},
        )[0]["samples"]


def _hooks_in(model) -> tuple:
    """Return all ways in which a node may act on a MODEL, other than patched weights."""
    options = {key: value for key, value in model.model_options.items() if value}
    return options, model.object_patches, model.wrappers, model.callbacks, model.attachments


def test_before_and_after_apply_z_magic_are_the_same(node, specimens, beside):
    conditions = (Condition("likeness", ReferenceImage(torch.rand(1, 3, 64, 64))),)
    settings = HostSettings(preset("balanced", gradient_path="full", time_travel=1), "linear_rgb")
    for family, neighbor in beside(node).items():
        specimen, other = specimens[family]
        if _hooks_in(neighbor.patcher) == _hooks_in(specimen.patcher):
            continue  # it patches weights, if anything: nothing of it meets us
        traces = []
        before = attach(neighbor.patcher, conditions, settings, on_finish=traces.append)
        ours = attach(specimen.patcher, conditions, settings, on_finish=traces.append)
        with torch.inference_mode():
            after = patched(model_patching_nodes()[node], replace(specimen, patcher=ours), other)
        samples = _guided(specimen, before)
        assert torch.isfinite(samples).all(), family
        assert torch.equal(_guided(specimen, after), samples), family
        for trace in traces:
            assert not trace.warnings, (family, trace.warnings)
            assert {step.path for step in trace.steps} <= {"full"}, family
