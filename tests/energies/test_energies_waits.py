"""No energy makes the processor wait for a device: what it compares with is there from the start.

The first call of a step may: it copies references and targets to the device, and finds the face.
"""

import pytest
import torch

from zmagic.guidance.conditions import Condition, region_at
from zmagic.guidance.energy import RunEnergy

from ..pretended_device import on_device, waits
from .energy_table import ENERGIES

SIZE = (48, 40)
MASK = torch.zeros(1, 24, 20)
MASK[:, 4:20, 3:18] = 1.0


@pytest.mark.parametrize("region", [None, MASK], ids=["everywhere", "in a region"])
@pytest.mark.parametrize("name", ENERGIES)
def test_an_energy_waits_for_no_device(name, region):
    pictures = torch.rand(2, 3, *SIZE, dtype=torch.float64)
    energy = ENERGIES[name](pictures)
    if isinstance(energy, RunEnergy):
        energy = energy.begin_run()
        energy.begin_step(0)
    condition = Condition(name, energy, region=region)
    image = on_device(torch.rand_like(pictures))
    with waits() as waited:
        for _ in range(2):
            waited.clear()
            point = image.clone().requires_grad_()
            values = energy(point, region_at(condition, point))
            (slope,) = torch.autograd.grad(values.sum(), point)
    assert not waited
    assert slope.isfinite().all() and slope.any()
