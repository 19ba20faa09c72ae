"""Energies of finished pictures, outside any sampling: no gradient, no diffusion model."""

from collections.abc import Sequence
from dataclasses import dataclass

import comfy.model_management
import torch
from torch import Tensor

from ..guidance.conditions import (
    Condition,
    begin_run,
    begin_step,
    reports,
    with_distinct_names,
)
from ..guidance.evaluation import EnergyField, Meter
from ..guidance.trace import rounded
from .networks import Network

__all__ = ["Measured", "energies_of"]


@dataclass(frozen=True)
class Measured:
    """Energies by condition, one for each picture; the weights; what the energies warn of."""

    energies: dict[str, list[float]]
    weights: dict[str, float]
    warnings: list[str]


def energies_of(conditions: Sequence[Condition], pictures: Tensor) -> Measured:
    """Measure pictures as a run measures what it has finished.

    Windows do not count, and conditions of weight 0 are left out. It can be interrupted between
    two conditions.

    Args:
        conditions: in any number; their networks are loaded by the host.
        pictures: ``[B, 3, H, W]`` RGB in [0, 1], ordinary tensors.

    Raises:
        ValueError: what an energy or its region raise, behind the condition's name.
    """
    present = tuple(c for c in begin_run(with_distinct_names(conditions)) if c.weight > 0.0)
    networks = {network: None for c in present for network in c.networks}
    patchers = [network.patcher for network in networks if isinstance(network, Network)]
    comfy.model_management.load_models_gpu(list({id(p): p for p in patchers}.values()))
    meter = Meter(before=comfy.model_management.throw_exception_if_processing_interrupted)
    with torch.inference_mode(False), torch.no_grad():
        image = pictures.to(comfy.model_management.get_torch_device())
        begin_step(present, None)
        field = EnergyField([], present, meter)
        found = [rounded(field.energy(j, image)) for j in range(len(present))]
    names = [c.name for c in present]
    return Measured(
        dict(zip(names, found, strict=True)),
        {c.name: c.weight for c in present},
        reports(present, "warnings"),
    )
