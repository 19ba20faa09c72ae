"""A small smooth world in float64 in which every gradient can be checked."""

from types import SimpleNamespace

import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.engine import GuidedRun
from zmagic.guidance.evaluation import EnergyField, Meter, Stage
from zmagic.guidance.schedule import NoiseLevel, Schedule
from zmagic.guidance.settings import preset

# Windows are shares of the noise, as with a model whose training has other steps than the sampler.
SCHEDULE = Schedule(
    (10.0, 5.0, 2.0, 1.0, 0.0),
    lambda sigma: NoiseLevel(1.0, sigma),
    lambda fraction: 10.0 * (1.0 - fraction),
)


def pytest_configure(config):
    torch.set_num_threads(1)  # on tensors this small a second thread costs more than it brings


def smooth_network(channels_in, channels_out, seed):
    generator = torch.Generator().manual_seed(seed)
    first, second = (
        torch.randn(shape, generator=generator, dtype=torch.float64) * 0.15
        for shape in ((8, channels_in, 3, 3), (channels_out, 8, 3, 3))
    )

    def network(x):
        hidden = torch.tanh(torch.nn.functional.conv2d(x, first, padding=1))
        return torch.nn.functional.conv2d(hidden, second, padding=1)

    return network


def distance_energy(target):
    """A curved, non-quadratic energy with its minimum 0 at ``target``."""

    def energy(image, region=None):
        difference = image - target
        if region is not None:
            difference = difference * region
        return torch.log1p(difference.square().flatten(1).mean(1))

    return energy


@pytest.fixture
def world():
    """Return denoise, decode (4 latent channels, image twice as large), and n conditions."""
    decoder = smooth_network(4, 3, seed=2)

    def decode(latent):
        image = torch.sigmoid(decoder(latent))
        return image.repeat_interleave(2, -1).repeat_interleave(2, -2)

    def conditions(n, seed=5, **options):
        generator = torch.Generator().manual_seed(seed)
        targets = torch.rand(n, 3, 8, 8, generator=generator, dtype=torch.float64)
        return tuple(
            Condition(f"target {i}", distance_energy(target), **options)
            for i, target in enumerate(targets)
        )

    def latent(batch=1, seed=7):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, 4, 4, 4, generator=generator, dtype=torch.float64)

    def run(conditions, check_slope=False, streams=None, watch=None, **settings):
        return GuidedRun(
            conditions,
            preset("faithful", **{"gradient_path": "prediction", **settings}),
            decode=decode,
            schedule=SCHEDULE,
            check_slope=check_slope,
            streams=streams,
            watch=watch,
        )

    def field(conditions, **options):
        stages = [Stage("denoiser", denoise), Stage("decoder", decode)]
        return EnergyField(stages, conditions, Meter(), **options)

    denoise = smooth_network(4, 4, seed=1)
    return SimpleNamespace(
        denoise=denoise,
        decode=decode,
        conditions=conditions,
        latent=latent,
        run=run,
        field=field,
        distance_energy=distance_energy,
    )
