"""Models whose layers another pack brings, with quantized weights: right, and nothing kept."""

import comfy.ops
import pytest
import torch

from zmagic.lab.saved_bytes import SavedBytes

from . import architectures
from .derivatives import sample
from .quantized_layers import CastingOperations, MultiplyingOperations, quantize


def _specimen(name: str, operations: type):
    """The quantized specimen, and the bytes of its weights when they are whole."""
    with torch.inference_mode():
        specimen = architectures.with_operations(architectures.DIFFUSION[name](), operations)
        return specimen, quantize(specimen.patcher.model)


def _saved(evaluation) -> int:
    with SavedBytes(evaluation.guider.inner_model).watching() as saved:
        evaluation.gradient(evaluation.x)
    return saved.peak


@pytest.mark.parametrize("operations", [CastingOperations, MultiplyingOperations])
@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_derivatives_and_memory(name, operations):
    specimen, whole = _specimen(name, operations)
    _, (first, second, saved) = sample(
        specimen, lambda e: (e.gradient_error(), e.hessian_error(), _saved(e))
    )
    resident, _ = _specimen(name, comfy.ops.disable_weight_init)
    _, expected = sample(resident, _saved)
    print(
        f"\n{name} gradient {first:.1e}  hessian {second:.1e}  "
        f"saved {saved / 1e6:.2f} MB, resident {expected / 1e6:.2f}, weights {whole / 1e6:.2f}"
    )
    assert first < 1e-3
    assert second < 2e-3
    assert whole > 4e5
    assert saved < expected + 0.05 * whole


@pytest.mark.parametrize("operations", [CastingOperations, MultiplyingOperations])
def test_other_packs_layers_are_left_as_they_were(operations):
    specimen, _ = _specimen("flux", operations)
    before = [dict(vars(module)) for module in specimen.patcher.model.modules()]

    def probe(evaluation):
        before = [dict(vars(module)) for module in specimen.patcher.model.modules()]
        evaluation.gradient(evaluation.x)
        return before == [dict(vars(module)) for module in specimen.patcher.model.modules()]

    assert sample(specimen, probe)[1]
    assert len(before) > 20
