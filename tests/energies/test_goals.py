"""Which energies know their goal, and that it is the one of the picture they were made of."""

import pytest
import torch

from .energy_table import ENERGIES
from .test_energies import references


# What they ask for is no picture's.
@pytest.mark.parametrize("name", ["palette of colors", "sketch of a drawing", "text"])
def test_without_a_goal(name):
    assert getattr(ENERGIES[name](references(1)), "goal", None) is None


REACHED = [
    "palette of a picture",
    "sketch of a photograph",
    "reference",
    "style",
    "landmarks",
    "output",
    "segmentation",
    "segmentation by squares",
]


@pytest.mark.parametrize("name", REACHED)
def test_the_goal_is_the_energy_of_the_picture_that_it_was_made_of(name):
    picture = references(1)
    energy = ENERGIES[name](picture)
    torch.testing.assert_close(energy(picture), torch.full((1,), energy.goal, dtype=torch.float64))
