"""Random draws depend on the seed, the picture, the noise level and the repeat, on nothing else."""

import pytest
import torch

from zmagic.guidance.random_streams import RandomStreams


def test_noise_is_standard_normal_and_new_for_every_picture_level_and_repeat():
    like = torch.empty(4, 4, 32, 32)
    streams = RandomStreams(7)
    draws = [streams.normal(like, sigma, repeat) for sigma in (14.6, 2.0) for repeat in (1, 2)]
    everything = torch.cat(draws).flatten(1)
    assert abs(float(everything.std()) - 1.0) < 0.02
    correlations = torch.corrcoef(everything) - torch.eye(len(everything))
    assert correlations.abs().max() < 5.0 / everything.shape[1] ** 0.5


def test_noise_is_not_that_of_the_bare_seed():
    """Samplers draw the initial noise with the bare seed, for one picture or for several."""
    drawn = RandomStreams(7).normal(torch.empty(1, 4, 32, 32), 14.6, 1)
    for batch in (1, 4):
        host = torch.randn(batch, 4, 32, 32, generator=torch.Generator().manual_seed(7))[-1:]
        correlation = torch.corrcoef(torch.cat([drawn, host]).flatten(1))[0, 1]
        assert abs(float(correlation)) < 5.0 / host.numel() ** 0.5


def test_a_picture_keeps_its_draws_whatever_else_is_drawn():
    whole = RandomStreams(3)
    noise = whole.normal(torch.empty(4, 2, 3), 1.0, 1)
    shifts = whole.shifts(4, 9, 1.0, 0)
    alone = RandomStreams(3, [2])
    alone.normal(torch.empty(1, 5), 2.0, 1)
    assert torch.equal(alone.normal(torch.empty(1, 2, 3), 1.0, 1), noise[2:3])
    assert alone.shifts(1, 9, 1.0, 0) == shifts[2:3]
    assert RandomStreams(3).step_seed(1.0) == alone.step_seed(1.0) != alone.step_seed(2.0)


def test_a_part_of_the_batch_counts_anew():
    streams = RandomStreams(3, [5, 6])
    assert torch.equal(
        streams.normal(torch.empty(1, 8), 1.0, 1),
        RandomStreams(3).normal(torch.empty(1, 8), 1.0, 1),
    )


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_every_seed_of_the_host_is_taken(seed):
    assert torch.isfinite(RandomStreams(seed).normal(torch.empty(1, 8), 1.0, 1)).all()


def test_shifts_reach_every_place_in_their_range():
    shifts = {shift for k in range(300) for shift in RandomStreams(k).shifts(1, 1, 1.0, 0)}
    assert shifts == {(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)}
