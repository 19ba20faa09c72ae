"""What is put around the sentence of an error: who it is about, and what to do."""

import json

import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.errors import advised, named
from zmagic.guidance.evaluation import EnergyField, Meter


def raised(error: Exception, *around) -> Exception:
    """Return the error that leaves ``around`` (innermost first) when ``error`` is raised inside."""
    if not around:
        return error
    with pytest.raises(type(error)) as caught, around[-1]:
        raise raised(error, *around[:-1])
    return caught.value


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError])
def test_a_sentence_gets_a_name_and_an_advice_and_keeps_its_kind(kind):
    error = kind("expected a cat")
    result = raised(error, advised("Feed it"), named("Zoo (node 3)"))
    assert str(result) == "Zoo (node 3): expected a cat\nFeed it"
    assert type(result) is kind and result.__cause__.__cause__ is error


def test_no_name_is_put_twice():
    result = raised(ValueError("expected a cat"), named("Zoo"), named("Zoo"))
    assert str(result) == "Zoo: expected a cat"


class Interruption(Exception):
    """Stands for the exception by which a host interrupts a run."""


@pytest.mark.parametrize(
    "error",
    [
        Interruption(),
        KeyError("cat"),
        RuntimeError("a bug"),
        torch.OutOfMemoryError("CUDA out of memory"),
        FileNotFoundError(2, "No such file or directory", "cat"),
        UnicodeDecodeError("ascii", b"\xff", 0, 1, "ordinal not in range"),
        json.JSONDecodeError("Expecting value", "x", 0),
        ValueError("two", "arguments"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_everything_else_passes_as_it_is(error):
    assert raised(error, advised("Feed it"), named("Zoo")) is error


def test_what_an_energy_raises_starts_with_its_condition():
    def energy(image, region):
        raise ValueError("the reference holds 3 pictures")

    field = EnergyField((), [Condition("Sketch 2", energy)], Meter())
    with pytest.raises(ValueError, match="^Sketch 2: the reference holds 3 pictures$"):
        field.energy(0, torch.zeros(1, 3, 4, 4))
