"""What a person sees whose ComfyUI is set to another language than English."""

import json
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
PHRASES = json.loads((PACK / "locales" / "zh" / "phrases.json").read_text(encoding="utf-8"))
PAGE = (PACK / "web" / "docs" / "ZMagicText" / "zh.md").read_text(encoding="utf-8")
# A graph keeps no titles but those that somebody gave: a node of the class as the menu adds it.
ADD = """kind => {
    const node = LiteGraph.createNode(kind);
    app.graph.clear();
    app.graph.add(node);
    Object.assign(app.canvas.ds, {scale: 1, offset: [200 - node.pos[0], 200 - node.pos[1]]});
    app.canvas.draw(true, true);
    return {title: node.title, widgets: node.widgets.map(widget => widget.label),
            inputs: node.inputs.map(input => input.localized_name)};
}"""
# The middle of a widget, in pixels of the window.
PLACE = """name => {
    const node = app.graph.nodes[0], {scale, offset} = app.canvas.ds;
    const widget = node.widgets.find(widget => widget.name === name);
    const box = app.canvas.canvas.getBoundingClientRect();
    return [box.x + (node.pos[0] + node.size[0] / 4 + offset[0]) * scale,
            box.y + (node.pos[1] + widget.y + 10 + offset[1]) * scale];
}"""


@pytest.fixture(scope="module")
def page(frontend, server, graph_of):
    """The frontend in Chinese, with the graph of text and face."""
    server.post("/settings", {"Comfy.Locale": "zh", "LiteGraph.Node.TooltipDelay": 100})
    try:
        with frontend.opened_frontend(server, "canvas") as page:
            frontend.load_graph(page, graph_of("text_and_identity_sdxl"))
            yield page
    finally:
        server.post("/settings", {"Comfy.Locale": "en", "LiteGraph.Node.TooltipDelay": 500})


def test_the_nodes_of_a_graph_have_chinese_titles_and_inputs(page):
    titles = page.evaluate("() => app.graph.nodes.map(node => node.title)")
    for english in ("Text Energy", "Face Identity Energy", "Load OpenCLIP", "Z-Magic Sampler"):
        assert PHRASES[english] in titles, titles


def test_a_tooltip_is_chinese(page):
    seen = page.evaluate(ADD, "ZMagicText")
    assert seen["title"] == PHRASES["Text Energy"]
    assert {PHRASES["weight"], PHRASES["crops"]} <= set(seen["widgets"])
    assert PHRASES["region"] in seen["inputs"]
    page.mouse.move(5, 5)
    page.mouse.move(*page.evaluate(PLACE, "weight"))
    tooltip = page.locator(".node-tooltip")
    tooltip.wait_for(state="visible")
    assert tooltip.inner_text() == next(
        there for english, there in PHRASES.items() if english.startswith("How strongly this")
    )


def test_a_help_page_is_chinese_where_there_is_one(page):
    """The frontend asks for the language's page first, then for the English one."""
    page.evaluate(ADD, "ZMagicText")
    page.evaluate("() => app.canvas.selectNode(app.graph.nodes[0])")
    page.get_by_test_id("info-button").click()
    page.get_by_text(PAGE.splitlines()[2]).first.wait_for()
