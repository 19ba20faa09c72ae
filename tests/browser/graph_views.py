"""The example graphs as users see them: nothing is covered, and they do what they say.

The tests are those of test_graphs_canvas.py and test_graphs_nodes_2.py, each with one renderer of
ComfyUI's frontend, so that two processes can share them.
"""

import json
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
TEXTS = tomllib.loads((WORKFLOWS / "graphs.toml").read_text(encoding="utf-8"))
APIS = {texts["name"]: api for api, texts in TEXTS.items()}
PATIENCE = 600.0  # seconds for a run of two steps, on a busy machine

WINDOW = (1600, 900)
SMALLEST_SCALE = 0.7  # at less the frontend draws no texts

NOTES = ("MarkdownNote",)

PROMPT = "async () => (await app.graphToPrompt()).output"
SEEDS = """() => app.graph.nodes.flatMap(node => (node.widgets ?? [])
    .filter(widget => widget.name === 'control_after_generate').map(widget => widget.value))"""
RUN = """async () => {
    for (const node of app.graph.nodes)
        for (const widget of node.widgets ?? [])
            if (widget.name === 'steps') widget.value = 2;
    await app.queuePrompt(0, 1);
}"""


@pytest.fixture(scope="module")
def page(frontend, server, renderer):
    with frontend.opened_frontend(server, renderer) as page:
        yield page


def graph(name: str) -> dict:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def missing(server, content: dict) -> set[str]:
    """The model files that a graph names and that are not among what its nodes offer."""
    described = server.get("/object_info")
    named = {
        (node["type"], value)
        for node in content["nodes"]
        for value in node.get("widgets_values") or ()
        if str(value).endswith((".safetensors", ".onnx")) and node["type"] not in NOTES
    }
    return {file for kind, file in named if file not in json.dumps(described[kind]["input"])}


def covered(frontend, page, renderer, content: dict) -> list[str]:
    """Return which nodes cover each other, by their kinds."""
    boxes = frontend.rectangles(page, renderer)
    kinds = {str(node["id"]): node["type"] for node in content["nodes"]}
    assert set(boxes) == set(kinds)
    return [f"{kinds[a]} {a} and {kinds[b]} {b}" for a, b in frontend.overlaps(boxes)]


def scale_of(boxes: dict, groups: list[dict]) -> float:
    """The largest scale at which all nodes and groups fit into the window."""
    frames = [*boxes.values(), *(group["bounding"] for group in groups)]
    sides = [
        max(frame[axis] + frame[axis + 2] for frame in frames) - min(f[axis] for f in frames)
        for axis in (0, 1)
    ]
    return min(window / side for window, side in zip(WINDOW, sides, strict=True))


def test_there_is_a_graph_for_every_prompt_and_no_other():
    assert {file.stem for file in (WORKFLOWS / "api").glob("*.json")} == set(TEXTS)
    assert {file.stem for file in WORKFLOWS.glob("*.json")} == set(APIS)


@pytest.mark.parametrize("name", APIS)
def test_nothing_is_covered_and_all_can_be_read(frontend, page, renderer, name):
    content = graph(name)
    frontend.load_graph(page, content)
    assert covered(frontend, page, renderer, content) == []

    # What a user drags in does what a service posts, and does it again.
    api = json.loads((WORKFLOWS / "api" / f"{APIS[name]}.json").read_text(encoding="utf-8"))
    prompt = page.evaluate(PROMPT)
    assert {i: (node["class_type"], node["inputs"]) for i, node in prompt.items()} == {
        i: (node["class_type"], node["inputs"]) for i, node in api.items()
    }
    assert set(page.evaluate(SEEDS)) <= {"fixed"}

    frontend.show_pictures(page, content)
    assert covered(frontend, page, renderer, content) == []
    boxes = frontend.rectangles(page, renderer)
    assert scale_of(boxes, content["groups"]) >= SMALLEST_SCALE
    assert frontend.unread_texts(page, boxes) == []
    kinds = {str(node["id"]): node["type"] for node in content["nodes"]}
    behind = frontend.wires_behind_nodes(page, boxes, SMALLEST_SCALE * 0.8)
    assert [f"{kinds[node]} {node}" for node in behind] == []

    frontend.load_graph(page, content)
    frontend.show_reports(page, content)
    assert covered(frontend, page, renderer, content) == []


# A wire from above to below, nearly upright in the middle, and a folded node beside it.
UPRIGHT = """() => {
    app.graph.clear();
    const [from, to, folded] = [['EmptyLatentImage', 0], ['VAEDecode', 800], ['SolidMask', 400]]
        .map(([type, y]) => {
            const node = LiteGraph.createNode(type);
            app.graph.add(node);
            node.pos = [0, y];
            return node;
        });
    to.pos = [from.size[0], 800];
    folded.pos = [-900, 400];
    folded.flags.collapsed = true;
    from.connect(0, to, 0);
    app.canvas.setDirty(true, true);
}"""
# Moves the folded node so that the wire is so deep in its left or right end.
AROUND = """([depth, width, end]) => {
    const [from, to, folded] = app.graph.nodes;
    const [[x, y], [toX, toY]] = [from.getOutputPos(0), to.getInputPos(0)];
    const [middle, height] = [(x + toX) / 2, (y + toY) / 2];
    const left = end === 'left' ? middle - depth : middle + depth - width;
    folded.pos = [left, height + LiteGraph.NODE_TITLE_HEIGHT / 2];
    app.canvas.setDirty(true, true);
    return String(folded.id);
}"""


@pytest.mark.parametrize("end", ["left", "right"])
def test_a_wire_behind_the_end_of_a_folded_node_is_seen(page, frontend, renderer, end):
    """Where the node has no socket that the wire comes to."""
    page.evaluate(frontend.ZOOM, frontend.SCALE)
    page.evaluate(UPRIGHT)
    frontend.settle(page)
    *_, (_, _, width, _) = frontend.rectangles(page, renderer).values()
    found = {}
    for depth in (-12, 12, 20):
        folded = page.evaluate(AROUND, [depth, width, end])
        frontend.settle(page)
        boxes = frontend.rectangles(page, renderer)
        found[depth] = folded in frontend.wires_behind_nodes(page, boxes, frontend.SCALE)
    assert found == {-12: False, 12: True, 20: True}


def test_a_graph_is_drawn_where_there_is_no_result(page, renderer, pytestconfig, tmp_path):
    if renderer != "canvas":
        pytest.skip("drawings are made on the canvas")
    drawings = pytestconfig.zmagic_script("graph_drawings")
    name = TEXTS["text_and_identity_sdxl"]["name"]
    drawings.draw(page, graph(name), name, tmp_path / "drawing.jpg")
    with (
        Image.open(tmp_path / "drawing.jpg") as drawn,
        Image.open(WORKFLOWS / f"{name}.jpg") as kept,
    ):
        assert drawn.size == kept.size
        # Letters may be of another font, and rounded otherwise; an empty drawing differs by 40.
        assert np.abs(np.asarray(drawn, float) - np.asarray(kept, float)).mean() < 12.0


def test_the_frontend_lists_all_missing_files_at_once(frontend, page, server):
    """The list has more than the checkpoint, so that nobody meets one error after the other."""
    listed = {}
    for name in APIS:
        content = graph(name)
        if not (expected := missing(server, content)):
            continue
        frontend.load_graph(page, content)
        details = page.get_by_text("View details")
        details.or_(page.get_by_text("Missing Models")).first.wait_for()
        if details.is_visible():
            details.click()
        page.get_by_text("Missing Models").first.wait_for()
        shown = page.evaluate("document.body.innerText")
        listed[name] = {file for file in expected if file in shown}
        assert listed[name] == expected
    assert listed, "every file of every graph is installed here"


@pytest.mark.slow
def test_a_run_covers_nothing_and_a_second_one_has_the_same_seeds(frontend, page, renderer, server):
    content = graph(TEXTS["ksampler"]["name"])
    frontend.load_graph(page, content)
    seeds = page.evaluate(PROMPT)["6"]["inputs"]["seed"]
    before = set(server.get("/history"))
    page.evaluate(RUN)
    deadline = time.monotonic() + PATIENCE
    while not (done := set(server.get("/history")) - before) and time.monotonic() < deadline:
        page.wait_for_timeout(250)
    assert server.get("/history")[done.pop()]["status"]["status_str"] == "success"
    frontend.settle(page)
    assert covered(frontend, page, renderer, content) == []
    assert page.evaluate(PROMPT)["6"]["inputs"]["seed"] == seeds
