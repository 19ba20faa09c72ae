"""The two nodes that say how to guide: what they give, and what they say of it."""

from dataclasses import replace

import pytest

from zmagic.guidance.settings import PRESETS, GuidanceSettings
from zmagic.host.hooks import HostSettings
from zmagic.nodes.method_node import ZMagicMethod
from zmagic.nodes.settings_node import ZMagicSettings

from .test_notices import in_graph, prompt_server, sent

__all__ = ["prompt_server"]  # a fixture

MOST_INPUTS = 8


def untouched(node) -> dict:
    """The values of a node's widgets as they begin."""
    return {e.id: e.default for e in node.GET_SCHEMA().inputs if hasattr(e, "default")}


def settings(preset="balanced", method=None, node=ZMagicSettings, **changes) -> HostSettings:
    """What Z-Magic Settings gives, with ``method`` as the changed widgets of Z-Magic Method."""
    chosen = {**untouched(ZMagicSettings), "preset": preset, **changes}
    if method is not None:
        (chosen["method"],) = ZMagicMethod.execute(**{**untouched(ZMagicMethod), **method}).args
    return node.execute(**chosen).args[0]


def with_one_strength(preset: str) -> GuidanceSettings:
    """The preset by the widget's strength, which is one for all: its unit is the same."""
    return replace(PRESETS[preset], strength=PRESETS["balanced"].strength)


@pytest.mark.parametrize("method", [None, {}], ids=["alone", "with an untouched method"])
@pytest.mark.parametrize("preset", PRESETS)
def test_untouched_settings_are_those_of_the_preset(preset, method):
    assert settings(preset, method) == HostSettings(with_one_strength(preset))


def test_without_settings_the_preset_is_the_first_one():
    assert HostSettings().guidance == PRESETS[untouched(ZMagicSettings)["preset"]]


def test_every_choice_of_the_method_is_in_one_of_the_two_nodes():
    known = [
        each.id for node in (ZMagicSettings, ZMagicMethod) for each in node.GET_SCHEMA().inputs
    ]
    fields = set(GuidanceSettings.__dataclass_fields__)
    assert fields <= set(known) and len(known) == len(set(known))
    assert len(ZMagicSettings.GET_SCHEMA().inputs) <= MOST_INPUTS


CHANGES = {
    "gradient_path": "prediction",
    "look_ahead": 0.0,
    "guide_every": 2,
    "travel_end": 0.5,
    "fresh_noise": 0.0,
    "momentum": 0.5,
    "random_shift": 4,
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_method_replaces_what_it_names_and_nothing_else(preset):
    given = settings(preset, CHANGES, decoder="vae", guide_end=0.8)
    assert given.guidance == replace(with_one_strength(preset), guide_end=0.8, **CHANGES)
    assert given.decoder == "vae"


def test_the_node_and_the_report_say_what_is_replaced(prompt_server):
    node = in_graph(ZMagicSettings, "4")
    method = {"gradient_path": "prediction", "dependence": "mutual", "fresh_noise": 0.25}
    (note,) = settings("quality", method, node).notes
    assert note == (
        "Z-Magic Method replaces of 'quality': gradient_path prediction in place of image, "
        "fresh_noise 0.25 in place of 0.5."
    )
    assert [text for _, text, _ in sent(prompt_server)] == [note]
    (note,) = settings("faithful", {"fresh_noise": 0.5}, node).notes
    assert note.endswith("fresh_noise 0.5 in place of as FreeDoM.")
    (note,) = settings("quality", {"time_travel": 3}, node).notes
    assert "nothing is replaced" in note


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ({"look_ahead": -0.5}, r"^Z-Magic Method.*: look_ahead must lie in \[0.0, inf\], got -0.5"),
        ({"travel_start": 0.7, "travel_end": 0.2}, "^Z-Magic Method.*: travel_start 0.7 must not"),
        ({"step_rule": "spherical", "time_travel": 2}, "^Z-Magic Method.*: set time_travel to 1"),
    ],
)
def test_what_no_preset_takes_is_refused_by_the_node_that_has_it(method, sentence):
    with pytest.raises(ValueError, match=sentence):
        settings("balanced", method)


def test_what_some_presets_take_is_refused_with_the_others():
    assert settings("fast", {"mean_share": 1.0}).guidance.mean_share == 1.0
    with pytest.raises(ValueError, match="^Z-Magic Settings.*: mean_share 1 leaves nothing"):
        settings("balanced", {"mean_share": 1.0})
    with pytest.raises(ValueError, match="^Z-Magic Settings.*: set time_travel to 1"):
        settings("quality", {"step_rule": "spherical"})
