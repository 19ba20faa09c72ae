"""What a person sees of the nodes in a real graph: colors of sockets and wires, folded inputs."""

import re
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
CODE = (PACK / "web" / "js" / "socket_colors.js").read_text(encoding="ascii")
COLORS = dict(re.findall(r"(ZMAGIC_\w+): '(#[0-9a-f]{6})'", CODE))
FOLDED = ["guide_start", "guide_end", "decoder", "memory"]

# The color of each output of ours by the pixel drawn there, and that of wires of its type.
ON_CANVAS = """() => {
    const {ds} = app.canvas, context = app.canvas.canvas.getContext('2d');
    const pixel = ([x, y]) => {
        ds.scale = 1;
        ds.offset = [400 - x, 400 - y];
        app.canvas.draw(true, true);
        return `rgb(${[...context.getImageData(400, 400, 1, 1).data].slice(0, 3).join(', ')})`;
    };
    return app.graph.nodes.flatMap(node => node.outputs.flatMap((output, k) => {
        if (!String(output.type).startsWith('ZMAGIC_') || !output.links?.length) return [];
        const wire = LGraphCanvas.link_type_colors[output.type];
        return [[output.type, pixel(node.getOutputPos(k)), wire]];
    }));
}"""
IN_PAGE = """() => app.graph.nodes.flatMap(node =>
    [...document.querySelectorAll(`[data-node-id="${node.id}"] .lg-slot`)].map(slot => {
        const style = getComputedStyle(slot.querySelector('[style*=color-datatype-ZMAGIC]')
                                       ?? slot);
        return style.backgroundColor;
    }))"""
VARIABLES = """types => types.map(type => getComputedStyle(document.documentElement)
    .getPropertyValue(`--color-datatype-${type}`).trim())"""
SET_PALETTE = "async name => app.extensionManager.setting.set('Comfy.ColorPalette', name)"
VISIBLE = """() => {
    const node = app.graph.nodes.find(node => node.type === 'ZMagicSettings');
    return {shown: node.widgets.filter(w => node.isWidgetVisible(w)).map(w => w.name),
            all: node.widgets.map(w => w.name), height: node.size[1]};
}"""
# As a user adds the one kind of settings that no graph has.
ADD_METHOD = """() => {
    const settings = app.graph.nodes.find(node => node.type === 'ZMagicSettings');
    const method = LiteGraph.createNode('ZMagicMethod');
    app.graph.add(method);
    method.pos = [settings.pos[0], settings.pos[1] - 1000];
    method.connect(0, settings, settings.inputs.findIndex(input => input.name === 'method'));
}"""
# Pixels of a node that nothing is drawn in.
EMPTY = """() => app.graph.nodes.filter(node => node.type.startsWith('ZMagic')
    && node.widgets?.some(w => w.options.advanced))
    .map(node => [node.type, node.size[1] - node.computeSize()[1]])"""


def rgb(color: str) -> str:
    return "rgb({}, {}, {})".format(*(int(color[k : k + 2], 16) for k in (1, 3, 5)))


@pytest.fixture(scope="module")
def page(request, frontend, server, graph_of):
    """A graph with all kinds of settings, its nodes unfolded and apart; one page at a time."""
    graph = graph_of("text_and_identity_demo")
    for k, node in enumerate(graph["nodes"]):
        node["flags"].pop("collapsed", None)
        node["pos"] = [600 * (k % 8), 1200 * (k // 8)]
    with frontend.opened_frontend(server, request.param) as page:
        frontend.load_graph(page, graph)
        page.evaluate(ADD_METHOD)
        yield page


on_canvas = pytest.mark.parametrize("page", ["canvas"], indirect=True)
in_nodes_2 = pytest.mark.parametrize("page", ["nodes 2.0"], indirect=True)


@on_canvas
def test_sockets_and_wires_have_their_colors_on_the_canvas_under_every_palette(page):
    for palette in ("light", "nord", "dark"):
        page.evaluate(SET_PALETTE, palette)
        page.wait_for_timeout(500)
        found = page.evaluate(ON_CANVAS)
        assert {"ZMAGIC_CONDITIONS", "ZMAGIC_SETTINGS", "ZMAGIC_METHOD"} <= {t for t, *_ in found}
        for kind, socket, wire in found:
            assert (socket, wire) == (rgb(COLORS[kind]), COLORS[kind]), (palette, kind)


@on_canvas
def test_inputs_rarely_needed_are_folded_on_the_canvas_until_asked_for(page):
    seen = page.evaluate(VISIBLE)
    assert [name for name in seen["all"] if name not in seen["shown"]] == FOLDED
    empty = dict(page.evaluate(EMPTY))
    assert {"ZMagicSettings", "ZMagicText"} <= empty.keys() and set(empty.values()) == {0}
    page.evaluate(
        "() => app.graph.nodes.find(node => node.type === 'ZMagicSettings').toggleAdvanced()"
    )
    unfolded = page.evaluate(VISIBLE)
    assert unfolded["shown"] == seen["all"] and unfolded["height"] > seen["height"]


@in_nodes_2
def test_sockets_have_their_colors_in_nodes_2(page):
    for palette in ("light", "dark"):
        page.evaluate(SET_PALETTE, palette)
        page.wait_for_timeout(500)
        assert page.evaluate(VARIABLES, list(COLORS)) == list(COLORS.values())
        shown = set(page.evaluate(IN_PAGE))
        assert {rgb(COLORS[f"ZMAGIC_{kind}"]) for kind in ("CONDITIONS", "SETTINGS")} <= shown
