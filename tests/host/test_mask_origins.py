"""A region that was painted on the reference is said: on the node, in the log, in the report."""

import asyncio
import logging
from pathlib import Path

import folder_paths
import nodes as host_nodes
import pytest
import torch
from comfy_api.internal import make_locked_method_func
from comfy_api.latest import io

from zmagic.guidance.conditions import reports
from zmagic.host.mask_origins import loaded_with
from zmagic.nodes.picture_energy_nodes import ZMagicColorPalette, ZMagicSketch

from .test_notices import prompt_server, sent

__all__ = ["prompt_server"]  # a fixture


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def graph(region: list, **more) -> dict:
    """A palette of the picture that node 1 loads, with a region; and nodes beside them."""
    return {
        "1": node("LoadImage", image="face.png"),
        "2": node("LoadImage", image="other.png"),
        "3": node("ZMagicColorPalette", reference=["1", 0], colors="", region=region),
        **more,
    }


SAMPLED = {
    "4": node("VAEEncode", pixels=["1", 0], vae=["8", 2]),
    "5": node("KSampler", latent_image=["4", 0]),
    "6": node("VAEDecode", samples=["5", 0], vae=["8", 2]),
    "7": node("ImageToMask", image=["6", 0], channel="red"),
}
LARGER = {
    "4": node("ImageScaleBy", image=["1", 0], upscale_method="area", scale_by=2.0),
    "5": node("InvertMask", mask=["6", 0]),
    "6": node("ImageToMask", image=["1", 0], channel="red"),
}


@pytest.fixture(scope="module", autouse=True)
def _nodes_of_masks():
    """ComfyUI registers these when its server starts."""
    file = Path(folder_paths.base_path) / "comfy_extras" / "nodes_mask.py"
    assert asyncio.run(host_nodes.load_custom_node(str(file), module_parent="comfy_extras"))


@pytest.mark.parametrize(
    ("region", "more", "loader"),
    [
        (["1", 1], {}, "1"),  # the mistake
        (["2", 1], {}, None),  # painted on another picture
        (["5", 0], LARGER, "1"),  # the mask was changed on its way
        (["4", 0], {"4": node("LoadImageMask", image="face.png [input]", channel="alpha")}, "4"),
        (["4", 0], {"4": node("SolidMask", value=1.0, width=64, height=64)}, None),
        # Image to image: the picture that is made has the layout of the reference.
        (["1", 1], {"4": node("VAEEncode", pixels=["1", 0], vae=["8", 2])}, None),
        (["1", 1], {"4": node("VAEEncode", pixels=["2", 0], vae=["8", 2])}, "1"),
        # A mask of a picture that was sampled is none of the file that the sampling began with.
        (["7", 0], {**SAMPLED, "4": node("EmptyLatentImage", width=64, height=64)}, None),
        (["9", 0], {}, None),  # a graph that ComfyUI refuses
    ],
)
def test_a_mask_and_a_reference_are_followed_to_their_file(region, more, loader):
    assert loaded_with(graph(region, **more), "3", "region", "reference") == loader


def test_a_list_of_two_boxes_is_no_link():
    prompt = graph(["4", 1], **{"4": node("LoadImage", image="face.png", boxes=[[0, 0], {}])})
    assert loaded_with(prompt, "3", "region", "reference") == "4"


def test_a_reference_is_followed_through_nodes_too():
    nodes = graph(["1", 1], **LARGER)
    nodes["3"]["inputs"]["reference"] = ["4", 0]
    assert loaded_with(nodes, "3", "region", "reference") == "1"
    assert loaded_with(nodes, "17", "region", "reference") is None


def conditions_of(kind, nodes: dict, number: str, **inputs) -> tuple:
    """The conditions of an energy node that ComfyUI executes in a graph."""
    hidden = {io.Hidden.unique_id: number, io.Hidden.prompt: nodes}
    clone = kind.PREPARE_CLASS_CLONE({"hidden_inputs": hidden})
    inputs = {"weight": 1.0, "start": 0.0, "end": 1.0, **inputs}
    return make_locked_method_func(kind, kind.FUNCTION, clone)(**inputs).args[0]


def palette(nodes: dict) -> tuple:
    pictures = {"reference": torch.rand(1, 8, 8, 3), "region": torch.ones(1, 8, 8)}
    return conditions_of(ZMagicColorPalette, nodes, "3", colors="", lightness=1.0, **pictures)


def test_the_node_the_log_and_the_report_say_it(prompt_server, caplog):
    with caplog.at_level(logging.WARNING):
        conditions = palette(graph(["1", 1]))
    (told,) = caplog.messages
    assert told.startswith("Color Palette Energy (node 3): connect the mask to 'reference_mask'")
    assert "(node 1)" in told and "picture that is being made" in told
    ((number, shown, _),) = sent(prompt_server)
    assert number == "3" and told.endswith(shown)
    assert reports(conditions, "warnings") == [f"Color Palette: {shown}"]
    # Connected otherwise, it is taken back.
    assert reports(palette(graph(["2", 1])), "warnings") == []
    assert sent(prompt_server)[0][1] == "No warnings."


def test_a_drawing_lies_over_the_picture_so_that_its_own_mask_is_a_region(caplog):
    nodes = graph(["1", 1])
    nodes["3"]["class_type"] = "ZMagicSketch"
    pictures = {"reference": torch.rand(1, 32, 32, 3), "region": torch.ones(1, 32, 32)}
    with caplog.at_level(logging.WARNING):
        conditions = conditions_of(
            ZMagicSketch, nodes, "3", reference_is="photograph", line_width=0.1, **pictures
        )
    assert reports(conditions, "warnings") == [] and not caplog.messages
