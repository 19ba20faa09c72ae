"""Energies of finished pictures, outside any sampling: no gradient, no diffusion model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from ..guidance.unseen import measured, unseen
from .memory import looked_at
from .networks import load_networks

__all__ = ["Measured", "energies_of"]


@dataclass(frozen=True)
class Measured:
    """Energies by condition, one for each picture; the weights; what the energies warn of.

    ``unseen`` are the pictures, from 0, in which what a condition is about was not seen: it has no
    energy there, NaN.
    """

    energies: dict[str, list[float]]
    unseen: dict[str, list[int]]
    weights: dict[str, float]
    warnings: list[str]


def energies_of(conditions: Sequence[Condition], pictures: Tensor) -> Measured:
    """Measure pictures as a run measures what it has finished, one after the other.

    Windows do not count, and conditions of weight 0 are left out. It can be interrupted between
    two pictures, and between two conditions.

    Args:
        conditions: in any number; their networks are loaded by the host, which makes room for what
            they compute.
        pictures: ``[B, 3, H, W]`` RGB in [0, 1], ordinary tensors in ordinary memory.

    Raises:
        ValueError: what an energy or its region raise, behind the condition's name.
    """
    present = [c for c in with_distinct_names(conditions) if c.weight > 0.0]
    energies, hidden, warnings = {}, {}, []
    for condition in present:
        found = _of_each(condition, pictures)
        energies[condition.name] = [energy for each in found for energy in each.energies]
        flags = enumerate(flag for each in found for flag in each.unseen)
        hidden[condition.name] = [b for b, flag in flags if flag]
        warnings += _by_picture([each.said for each in found])
    return Measured(energies, hidden, {c.name: c.weight for c in present}, warnings)


@dataclass(frozen=True)
class _Found:
    """What was found in pictures measured at once: energies, where it was not seen, warnings."""

    energies: list[float]
    unseen: list[bool]
    said: list[str]


def _of_each(condition: Condition, pictures: Tensor) -> list[_Found]:
    """What is found in each of the pictures, or in all at once.

    A condition that asks for something else of each picture takes them together only, and refuses
    a single one.
    """
    try:
        _make_room(condition, pictures[:1])
        return [
            _measured(_part(condition, b, len(pictures)), picture)
            for b, picture in enumerate(pictures.split(1))
        ]
    except ValueError:
        _make_room(condition, pictures)
        return [_measured(condition, pictures)]


def _make_room(condition: Condition, pictures: Tensor) -> None:
    """Have the host load the networks, and free the memory that they take for such pictures."""
    load_networks(condition.networks, looked_at(pictures.shape))


def _part(condition: Condition, picture: int, pictures: int) -> Condition:
    """The condition with the region of one of the pictures, if it has one for each."""
    region = condition.region
    if not isinstance(region, Tensor) or len(region) != pictures:
        return condition
    return replace(condition, region=region[picture : picture + 1])


def _measured(condition: Condition, pictures: Tensor) -> _Found:
    """Pictures at once."""
    meter = Meter(before=comfy.model_management.throw_exception_if_processing_interrupted)
    alone = begin_run((condition,))  # a face is where it is in these pictures, not in those before
    with torch.inference_mode(False), torch.no_grad():
        image = pictures.to(comfy.model_management.get_torch_device())
        begin_step(alone, None)
        energy = EnergyField([], alone, meter).energy(0, image)
        (energies,) = rounded(torch.stack(measured(alone, [energy])))
    hidden = unseen(alone[0], len(pictures))
    return _Found(energies, hidden, reports(alone, "warnings"))


def _by_picture(said: Sequence[Sequence[str]]) -> list[str]:
    """The sentences of all pictures, each once; one that is not of all says of which."""
    sentences = dict.fromkeys(sentence for each in said for sentence in each)
    pictures = {s: [b for b, each in enumerate(said, start=1) if s in each] for s in sentences}
    return [
        sentence
        if len(where) == len(said)
        else f"picture {', '.join(map(str, where))} of {len(said)}: {sentence}"
        for sentence, where in pictures.items()
    ]
