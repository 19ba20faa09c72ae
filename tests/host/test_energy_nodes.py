"""The energy nodes inside the real host: chains, errors, and gradients afterwards."""

import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.nodes.combine_conditions_node import ZMagicCombineConditions
from zmagic.nodes.picture_energy_nodes import (
    ZMagicColorPalette,
    ZMagicReferenceImage,
    ZMagicSketch,
)

COMMON = {"weight": 1.0, "start": 0.0, "end": 1.0}

# Each energy node with the inputs it needs beside a reference.
ENERGY_NODES = {
    ZMagicColorPalette: {"colors": "", "lightness": 0.5, **COMMON},
    ZMagicSketch: {"reference_is": "drawing", "line_width": 0.012, **COMMON},
    ZMagicReferenceImage: {"blur": 0.02, **COMMON},
}


def picture(batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 40, 30, 3)


def chain(node, **inputs) -> tuple[Condition, ...]:
    """Return what the node puts out in a prompt, which the host runs in inference mode."""
    with torch.inference_mode():
        (conditions,) = node.execute(**ENERGY_NODES[node], **inputs).args
    return conditions


@pytest.mark.parametrize("node", ENERGY_NODES)
def test_appends_its_condition(node):
    first = chain(node, reference=picture())
    (condition,) = first
    assert f"{condition.name} Energy" == node.GET_SCHEMA().display_name
    assert (condition.weight, condition.start, condition.end) == (1.0, 0.0, 1.0)
    assert condition.region is None
    longer = chain(node, reference=picture(), region=torch.ones(20, 20), conditions=first)
    assert longer[:1] == first and len(longer) == 2 and len(first) == 1
    assert longer[1].region.shape == (1, 20, 20)


@pytest.mark.parametrize(
    ("given", "own", "expected"),
    [
        ({}, None, None),
        ({"satisfied_at": -1.0}, None, None),
        ({"satisfied_at": -0.5}, 0.2, None),
        ({"satisfied_at": 0.25}, None, 0.25),
        ({}, 0.2, 0.2),
        ({"satisfied_at": 0.0}, 0.2, 0.0),
    ],
)
def test_the_energy_that_satisfies_is_the_users_else_the_nodes(monkeypatch, given, own, expected):
    monkeypatch.setattr(ZMagicSketch, "SATISFIED_AT", own)
    widget = next(i for i in ZMagicSketch.define_schema().inputs if i.id == "satisfied_at")
    assert widget.default == (-1.0 if own is None else own) and widget.advanced and widget.optional
    (condition,) = chain(ZMagicSketch, reference=picture(), **given)
    assert condition.satisfied_at == expected


@pytest.mark.parametrize("node", ENERGY_NODES)
def test_energy_has_gradients_outside_the_prompt(node):
    """References and masks of a prompt are inference tensors; the sampler needs gradients."""
    with torch.inference_mode():
        (condition,) = chain(node, reference=picture(), region=torch.ones(1, 64, 64))
    image = torch.rand(2, 3, 64, 64, requires_grad=True)
    condition.energy(image, condition.region[:, None]).sum().backward()
    assert image.grad.isfinite().all() and image.grad.abs().max() > 0.0


@pytest.mark.parametrize("node", ENERGY_NODES)
def test_inputs_are_left_as_they_came(node):
    reference, mask = picture(), torch.rand(1, 8, 8)
    before = reference.clone(), mask.clone()
    (condition,) = chain(node, reference=reference, region=mask)
    condition.energy(torch.rand(1, 3, 16, 16))
    assert torch.equal(reference, before[0]) and torch.equal(mask, before[1])
    mask.zero_()
    assert torch.equal(condition.region, before[1])


def test_palette_of_colors():
    inputs = {**ENERGY_NODES[ZMagicColorPalette], "colors": "#264653:2, #e9c46a:1"}
    ((condition,),) = ZMagicColorPalette.execute(**inputs).args
    assert condition.energy(torch.rand(2, 3, 16, 16)).shape == (2,)


@pytest.mark.parametrize(
    ("node", "inputs", "message"),
    [
        (ZMagicColorPalette, {}, "Color Palette Energy: expected a picture at 'reference' or"),
        (
            ZMagicColorPalette,
            {"colors": "#fff", "reference": picture()},
            "Color Palette Energy: 'reference' and 'colors' are both given",
        ),
        (
            ZMagicColorPalette,
            {"colors": "blue"},
            "Color Palette Energy: 'colors' must be .* 'blue'",
        ),
        (
            ZMagicSketch,
            {"reference": picture(), "start": 0.6, "end": 0.2},
            "Sketch Energy: expected 'start' not after 'end', got start 0.6 and end 0.2",
        ),
        (
            ZMagicReferenceImage,
            {"reference": picture()[..., :2]},
            r"Reference Image Energy: 'reference' must be an RGB image .* \[1, 40, 30, 2\]",
        ),
        (
            ZMagicReferenceImage,
            {"reference": picture(), "region": torch.ones(1, 1, 8, 8)},
            r"Reference Image Energy: 'region' must be a mask .* \[1, 1, 8, 8\]",
        ),
    ],
)
def test_errors_name_the_node(node, inputs, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        node.execute(**{**ENERGY_NODES[node], **inputs})


def test_combine_keeps_the_order_and_each_condition_once():
    start = chain(ZMagicSketch, reference=picture())
    left = chain(ZMagicColorPalette, reference=picture(), conditions=start)
    right = chain(ZMagicReferenceImage, reference=picture(), conditions=start)
    chains = {"conditions0": left, "conditions1": right, "conditions2": None}
    (joined,) = ZMagicCombineConditions.execute(chains=chains).args
    assert joined == (*left, right[1])
