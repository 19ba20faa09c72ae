"""A prompt for each region, by the host's own nodes, under guidance: masks, areas and hooks."""

from dataclasses import replace

import comfy.hooks
import pytest
import torch
from nodes import ConditioningCombine, ConditioningSetArea, ConditioningSetMask
from torch import Tensor

from . import architectures
from .architectures import Specimen
from .placements import PLACEMENTS, ended
from .test_gradients_conditions import _lora

LEFT = torch.zeros(1, 64, 64)
LEFT[..., :32] = 1.0


def combined(*conds: list) -> list:
    both = conds[0]
    for cond in conds[1:]:
        (both,) = ConditioningCombine().combine(both, cond)
    return both


def in_mask(cond: list, mask: Tensor) -> list:
    return ConditioningSetMask().append(cond, mask, "default", 1.0)[0]


def in_area(cond: list, x: int) -> list:
    return ConditioningSetArea().append(cond, 32, 64, x, 0, 1.0)[0]


def _masks(specimen: Specimen, left: list, right: list) -> list:
    return combined(specimen.positive, in_mask(left, LEFT), in_mask(right, 1 - LEFT))


def _areas(specimen: Specimen, left: list, right: list) -> list:
    return combined(specimen.positive, in_area(left, 0), in_area(right, 32))


def _hooks(specimen: Specimen, left: list, right: list) -> list:
    """Each region with a LoRA of its own."""
    loras = [comfy.hooks.create_hook_lora(_lora(specimen, seed), 0.8, 0.0) for seed in (7, 8)]
    sides = [
        comfy.hooks.set_hooks_for_conditioning(cond, lora)
        for cond, lora in zip((left, right), loras, strict=True)
    ]
    return _masks(specimen, *sides)


REGIONS = {each.__name__.strip("_"): each for each in (_masks, _areas, _hooks)}


@pytest.fixture(scope="module")
def specimen():
    with torch.inference_mode():
        return architectures.sd15()


@pytest.mark.parametrize("name", PLACEMENTS)
@pytest.mark.parametrize("regions", REGIONS)
def test_guidance_runs_on_top_and_every_prompt_has_its_effect(specimen, regions, name):
    def run(left: int = 11, right: int = 12, strength: float = 0.3):
        prompts = (architectures.conditioning(seed=seed) for seed in (left, right))
        with torch.inference_mode():
            each = replace(specimen, positive=REGIONS[regions](specimen, *prompts))
        return ended(each, name, strength, steps=2)

    samples, final = run()
    assert all(final[key] < value for key, value in run(strength=0.0)[1].items())
    for side, change in ((0, {"left": 13}), (1, {"right": 13})):
        halves = (run(**change)[0] - samples).chunk(2, dim=-1)
        assert halves[side].norm() > 1.5 * halves[1 - side].norm() > 0.0
