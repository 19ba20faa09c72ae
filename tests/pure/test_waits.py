"""How often a guided step waits for the device it runs on.

On a GPU every wait empties the queue of work: steps of many small operations take as long as the
processor needs to hand them over.
"""

import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.progress import Watch, look_line
from zmagic.guidance.settings import PRESETS

from ..pretended_device import on_device, waits
from .conftest import distance_energy

CONDITIONS, BATCH = 3, 2
# The products that the balance needs, and the numbers of the report; they may only become fewer.
AT_MOST = {"balanced": 2, "fast": 2}


def test_what_the_device_records():
    x = on_device(torch.arange(6.0).view(2, 3))
    mask = x > 1.0
    asks = (
        lambda: x.sum().item(),
        lambda: x.tolist(),
        lambda: bool(mask.any()),
        lambda: float(x.amax()),
        lambda: x.cpu(),
        lambda: x[mask],
        lambda: torch.ones(3).to(x),
        lambda: x.new_tensor([1.0, 2.0]),
        lambda: torch.tensor([1.0], device=x.device),
        lambda: torch.equal(x, x),
        lambda: x[torch.tensor([0])],
    )
    for ask in asks:
        with waits() as waited:
            ask()
        assert len(waited) == 1
    with waits() as waited:
        point = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad((point.tanh() * torch.ones_like(x)).sum(), point)
        torch.where(mask, slope, 0.0).double().to(x.dtype)[0].new_full((3,), 2.0)
    assert not waited
    expected = 1.0 - torch.arange(6.0).view(2, 3).tanh().square()
    torch.testing.assert_close(torch.tensor(slope.tolist()), expected)


@pytest.mark.parametrize("name", AT_MOST)
def test_a_step_waits_no_more_often_than_it_did(world, name):
    generator = torch.Generator().manual_seed(5)
    targets = torch.rand(CONDITIONS, 3, 8, 8, generator=generator, dtype=torch.float64)
    conditions = [
        Condition(f"target {i}", distance_energy(on_device(target)))
        for i, target in enumerate(targets)
    ]
    x = on_device(world.latent(BATCH))
    lines: list[str] = []  # what a node shows while it runs takes no wait of its own
    watch = Watch(looked=lambda record: lines.append(look_line(record, 4)))
    run = world.run(conditions, watch=watch, **vars(PRESETS[name]))
    sigma = next(sigma for sigma in run.schedule.sigmas if run.guides(sigma))
    with waits() as waited:
        run.predict(x, sigma, world.denoise)  # copies of constants, once a run
        waited.clear()
        guided = run.predict(x, sigma, world.denoise)
    assert len(waited) <= AT_MOST[name], waited
    assert len(lines) == 2
    assert guided.isfinite().all()


def test_the_device_computes_what_the_processor_does(world):
    settings = vars(PRESETS["balanced"])
    plain = world.run(world.conditions(CONDITIONS), **settings)
    there = world.run(world.conditions(CONDITIONS), **settings)
    expected = plain.predict(world.latent(BATCH), 5.0, world.denoise)
    with waits():
        guided = there.predict(on_device(world.latent(BATCH)), 5.0, world.denoise)
    assert guided.tolist() == expected.tolist()
