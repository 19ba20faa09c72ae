"""Guidance by the presets that differentiate through the model, and behind it."""

from torch import Tensor

from zmagic.guidance.settings import preset
from zmagic.host.hooks import HostSettings

from .architectures import Specimen
from .test_hooks import guided

PLACEMENTS = ("balanced", "fast")  # through the model, and behind it


def ended(
    specimen: Specimen, name: str, strength: float, steps: int = 4
) -> tuple[Tensor, dict[str, float]]:
    """The samples of a run without a warning, and the sum of each condition's final energies."""
    # In so few steps `fast` would guide one alone.
    options = {"guide_every": 1, "step_rule": "residual"} if name == "fast" else {}
    settings = HostSettings(preset(name, strength=strength, **options), "linear_rgb")
    samples, trace = guided(specimen, settings, batch=1, steps=steps, scheduler="simple")
    assert not trace.warnings
    return samples, {key: sum(values) for key, values in trace.final.items()}
