"""Whatever stands in a widget, a node does its work or says in a sentence why it does not."""

import time

import pytest
import torch
from comfy_api.latest import io
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from zmagic.guidance.conditions import Condition
from zmagic.guidance.trace import Trace
from zmagic.nodes.compare_runs_node import ZMagicCompareRuns
from zmagic.nodes.demo_nodes import ZMagicLoadDemoNetworks
from zmagic.nodes.face_energy_nodes import ZMagicFaceIdentity, ZMagicLandmarks
from zmagic.nodes.image_similarity_node import ZMagicImageSimilarity
from zmagic.nodes.locate_face_node import ZMagicLocateFace
from zmagic.nodes.method_node import ZMagicMethod
from zmagic.nodes.onnx_nodes import ZMagicOnnxEnergy
from zmagic.nodes.openclip_energy_nodes import ZMagicStyle, ZMagicText
from zmagic.nodes.pattern_energy_nodes import (
    ZMagicBrightnessMap,
    ZMagicSeamless,
    ZMagicSharpness,
    ZMagicSymmetry,
)
from zmagic.nodes.picture_energy_nodes import ZMagicColorPalette, ZMagicReferenceImage, ZMagicSketch
from zmagic.nodes.preference_node import ZMagicPreference
from zmagic.nodes.robust_views_node import ZMagicRobustViews
from zmagic.nodes.segmentation_nodes import ZMagicSegmentation
from zmagic.nodes.settings_node import ZMagicSettings

LONGEST_SENTENCE, MOST_SECONDS = 2_000, 10.0
BOUNDED = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # a failing value need not be the smallest
    suppress_health_check=list(HealthCheck),
)

# What people typed, pasted and sent, and should not have.
TEXTS = st.one_of(
    st.sampled_from(
        [
            "\udc80",
            "1" * 40_000,
            "1e309 :: x",
            "nan :: x",
            ":: ::",
            "x,x",
            "x\n" * 100_000,
            "#264653:1e38, #fff:1",
            "1:1e38",
            "0:0, 1:0",
            "17 hair, 1 skin",
            "\x00",
            "(((" * 5_000,
        ]
    ),
    st.text(st.characters(), max_size=60),
    st.text("0123456789.,:;#eE+- \n\udc80", max_size=60),
)


@pytest.fixture(scope="module")
def networks():
    with torch.inference_mode():
        return ZMagicLoadDemoNetworks.execute().args


@pytest.fixture(scope="module")
def sockets(networks):
    """Return what is connected to the nodes, by the name of the input."""
    openclip, segmenter, recognizer, landmark_network = networks
    picture = torch.rand(1, 24, 20, 3, generator=torch.Generator().manual_seed(0))
    report = Trace({}, [], {"Text": [0.5]}).to_json()
    return {
        "openclip": openclip,
        "segmenter": segmenter,
        "recognizer": recognizer,
        "landmark_network": landmark_network,
        "network": segmenter,
        "reference": picture,
        "target_image": picture,
        "region": picture[..., 0],
        "reference_mask": picture[..., 1] + 0.01,
        "images": {"image0": picture},
        "conditions": (Condition("bright", lambda image, region=None: image.mean((1, 2, 3))),),
        "reports": {"report0": report},
        "masks": {"mask0": picture[..., 2]},
        "bounding_box": {"x": 1, "y": 1, "width": 5, "height": 5},
    }


NODES = (
    ZMagicColorPalette,
    ZMagicSketch,
    ZMagicReferenceImage,
    ZMagicBrightnessMap,
    ZMagicSeamless,
    ZMagicSymmetry,
    ZMagicSharpness,
    ZMagicText,
    ZMagicStyle,
    ZMagicImageSimilarity,
    ZMagicPreference,
    ZMagicFaceIdentity,
    ZMagicLandmarks,
    ZMagicSegmentation,
    ZMagicOnnxEnergy,
    ZMagicLocateFace,
    ZMagicMethod,
    ZMagicRobustViews,
    ZMagicSettings,
    ZMagicCompareRuns,
)


def widget(entry: io.Input) -> st.SearchStrategy | None:
    """Values of a widget; of numbers also those beyond its range, None for a socket."""
    if isinstance(entry, io.DynamicCombo.Input):
        return st.one_of([chosen(entry.id, option) for option in entry.options])
    if isinstance(entry, io.Combo.Input):
        return st.sampled_from(entry.options)
    if isinstance(entry, io.Boolean.Input):
        return st.booleans()
    if isinstance(entry, io.Int.Input):
        return st.one_of(st.integers(entry.min, entry.max), st.sampled_from([-1, 0, 2**63]))
    if isinstance(entry, io.Float.Input):
        strange = st.sampled_from([float("nan"), float("inf"), -1.0, 1e38, 0.0])
        return st.one_of(st.floats(entry.min, entry.max), strange)
    if isinstance(entry, io.String.Input) and not getattr(entry, "force_input", False):
        return TEXTS
    return None


def chosen(name: str, option: io.DynamicCombo.Option) -> st.SearchStrategy:
    """An option of the combo ``name`` with values of its widgets; its sockets are left open."""
    known = {entry.id: widget(entry) for entry in option.inputs}
    values = {key: st.none() if value is None else value for key, value in known.items()}
    return st.fixed_dictionaries({name: st.just(option.key), **values})


def default(entry: io.Input) -> object:
    """The value that a widget begins with; None for a socket."""
    if isinstance(entry, io.DynamicCombo.Input):
        inputs = entry.options[0].inputs
        return {entry.id: entry.options[0].key, **{each.id: default(each) for each in inputs}}
    if widget(entry) is None:
        return None
    return entry.options[0] if isinstance(entry, io.Combo.Input) else entry.default


def defaults(node) -> dict:
    entries = node.define_schema().inputs
    return {entry.id: default(entry) for entry in entries if widget(entry) is not None}


def check(node, sockets, changes: dict) -> None:
    """Run the node; anything else than success or a sentence fails."""
    entries = {entry.id: entry for entry in node.define_schema().inputs}
    left_out = {
        key for key in changes.get("without", ()) if getattr(entries.get(key), "optional", 0)
    }
    wanted = [key for key in entries if key in sockets and key not in left_out]
    inputs = {**{key: sockets[key] for key in wanted}, **defaults(node), **changes}
    inputs.pop("without", None)
    started = time.process_time()
    try:
        with torch.inference_mode():
            node.execute(**inputs)
    except ValueError as refused:
        sentence = str(refused)
        sentence.encode()
        assert sentence.strip() and len(sentence) < LONGEST_SENTENCE, sentence[:200]
        assert " " in sentence and "Traceback" not in sentence
    assert time.process_time() - started < MOST_SECONDS


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_any_value_of_one_or_two_widgets(node, sockets):
    entries = {e.id: w for e in node.define_schema().inputs if (w := widget(e)) is not None}
    either = [("reference", "openclip"), ("network",), ("masks",), ("target_image",), ()]

    @BOUNDED
    @given(st.data())
    def tried(data):
        names = data.draw(st.lists(st.sampled_from(list(entries)), max_size=2, unique=True))
        changes = {name: data.draw(entries[name], name) for name in names}
        check(node, sockets, {"without": data.draw(st.sampled_from(either)), **changes})

    if entries:
        tried()
    check(node, sockets, {})


@pytest.mark.parametrize("text", ["1e309 :: x", "nan :: x", ":: ::", "\udc80", "1" * 40_000])
def test_prompts_that_were_met(sockets, text):
    for name in ("prompt", "negative_prompt"):
        check(ZMagicText, sockets, {name: text})


@BOUNDED
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["steps", "final", "totals", "conditions", "energies", "cosines"]),
                inner,
                max_size=6,
            ),
        ),
        max_leaves=12,
    )
)
@example({"steps": [{}], "final": {}, "totals": {}})
@example({"steps": [], "final": {"a": [None]}, "totals": {}})
def test_any_json_for_a_report(content):
    import json

    picture = {"image0": torch.zeros(1, 8, 8, 3)}
    check(ZMagicCompareRuns, {}, {
        "images": picture, "reports": {"report0": json.dumps(content)}, "labels": "one",
    })  # fmt: skip
