"""Turn the API-format workflows into graph files: ``python scripts/make_workflows.py``.

For each ``workflows/api/NAME.json`` the host's own frontend, in headless Chromium, makes the graph
and measures its nodes in both renderers with pictures in them. The graph is laid out in groups,
gets the note and the name that ``workflows/graphs.toml`` has for it, and is turned back into a
prompt, which must equal the one it came from: what a user drags in does the same as what a service
posts. A graph that needs files gets a drawing as its picture in Templates (``make_pictures.py``
takes those of the others), and the lists of graphs in the README and for comfy-test are made anew.

Needs a Chromium (CHROMIUM names its executable).
"""

import argparse
import json
import sys
from collections.abc import Sequence

from api_client import running_server
from frontend import (
    RENDERERS,
    cut_off,
    load_graph,
    note_heights,
    opened_frontend,
    rectangles,
    show_pictures,
    show_reports,
    write_pictures,
)
from graph_drawings import draw
from graph_files import describe, files_of
from graph_layout import NOTE, Layout, note_widths, widths
from graph_lists import prompt_of, write_lists
from graph_notes import Texts, note_of, read_texts
from headless import PACK
from packages import STATE
from playwright.sync_api import Page

WORKFLOWS = PACK / "workflows"

SHOWING_PICTURES = ("LoadImage", "PreviewImage", "SaveImage")
MOST_LOOKS = 3  # at texts that may still be cut off
TITLE = 30  # pixels of a node's title, which its size does not count

# The window that a graph is first seen in, what the frontend has at its left and upper side, and
# its menus above the graph, which may cover the groups' titles where space is scarce.
WINDOW, FRAME, MENUS = (1600, 900), (62, 40), 50
SCARCE = 0.7

# Pictures of the graph before must not stay in nodes of the same ids.
LOAD_API = """async ([api, name]) => {
    app.clean();
    await app.loadApiJson(api, name);
    return app.graph.serialize();
}"""
# Sizes as small as a node's content allows, and seeds that stay: a second run repeats the first.
SETTLE = """([widths, folded]) => {
    for (const node of app.graph.nodes) {
        if (folded.includes(node.title)) node.flags.collapsed = true;
        node.setSize([widths[node.id], node.computeSize()[1]]);
        for (const widget of node.widgets ?? [])
            if (widget.name === 'control_after_generate') widget.value = 'fixed';
    }
    return app.graph.serialize();
}"""
ROUND_TRIP = """async graph => {
    await app.loadGraphData(graph);
    const known = new Set(Object.keys(LiteGraph.registered_node_types));
    const missing = app.graph.nodes.filter(n => !known.has(n.type)).map(n => n.type);
    return {missing, prompt: (await app.graphToPrompt()).output};
}"""


def main() -> int:
    """Write the graph files; the exit status tells whether every round trip was exact."""
    parser = argparse.ArgumentParser(description="Write workflows/*.json from workflows/api.")
    parser.add_argument("names", nargs="*", help="Prompts in workflows/api. Default: all.")
    texts = read_texts()
    names = parser.parse_args().names or list(texts)
    if unknown := set(names) - set(texts):
        parser.error(f"without an entry in workflows/graphs.toml: {', '.join(sorted(unknown))}")
    work = PACK / ".host" / "make_workflows"
    write_pictures(STATE / "server" / "input")
    graphs: dict[str, dict] = {}
    boxes: dict[str, list[dict]] = {name: [] for name in names}
    notes: dict[str, list[dict]] = {name: [] for name in names}
    with running_server(work, work / "server.log", cpu=True) as server:
        for renderer in RENDERERS:
            with opened_frontend(server, renderer) as page:
                for name in names:
                    if name not in graphs:
                        graphs[name] = graph_of(page, prompt_of(name), name, texts[name].folded)
                    boxes[name] += _measured(page, renderer, graphs[name])
                    note = note_of(prompt_of(name), texts[name])
                    notes[name].append(note_heights(page, note, note_widths()))
        for name, graph in graphs.items():
            _arrange(graph, boxes[name], notes[name], note_of(prompt_of(name), texts[name]))
            describe(graph["nodes"], prompt_of(name))
            _offer(graph, prompt_of(name), texts[name])
        with opened_frontend(server, "canvas") as page:
            exact = [_write(page, name, texts[name], graph) for name, graph in graphs.items()]
    write_lists()
    return 0 if all(exact) else 1


def graph_of(page: Page, api: dict, name: str, folded: Sequence[str] = ()) -> dict:
    """The graph that the frontend makes of a prompt, with nodes as wide as their columns.

    Args:
        api: the prompt.
        name: what the frontend calls the graph.
        folded: titles of nodes that show no more than that at first.
    """
    made = page.evaluate(LOAD_API, [api, name])
    wide = {str(node): width for node, width in widths(made).items()}
    return page.evaluate(SETTLE, [wide, list(folded)])


def _measured(page: Page, renderer: str, graph: dict) -> list[dict[str, tuple[float, ...]]]:
    """Return where each node is in a run, and after it; nodes grow until texts are seen whole."""
    load_graph(page, graph)
    for _ in range(MOST_LOOKS):
        if not (grown := cut_off(page)):
            break
        for node in graph["nodes"]:
            node["size"][1] += grown.get(str(node["id"]), 0)
        load_graph(page, graph)
    show_pictures(page, graph)
    running = rectangles(page, renderer)
    load_graph(page, graph)
    show_reports(page, graph)
    return [running, rectangles(page, renderer)]


def _arrange(graph: dict, boxes: list[dict], note_heights: list[dict], text: str) -> None:
    """Give everything its place, with room for what each renderer makes of it.

    What always shows a picture has its size from the start; what shows one for the time of a run
    only has the room.
    """
    for node in graph["nodes"]:
        if node["type"] in SHOWING_PICTURES:
            node["size"][1] = round(boxes[0][str(node["id"])][3]) - TITLE
    tallest = {width: max(heights[width] for heights in note_heights) for width in note_heights[0]}
    note = {
        "id": graph["last_node_id"] + 1,
        "type": NOTE,
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "Read me first",
        "properties": {},
        "widgets_values": [text],
        "color": "#432",
        "bgcolor": "#653",
    }
    graph["last_node_id"] += 1
    Layout(graph, boxes, tallest).write(note)


def _offer(graph: dict, api: dict, texts: Texts) -> None:
    """How the graph is first seen: all of it; and what ComfyUI's App mode shows of it."""
    left = min(group["bounding"][0] for group in graph["groups"])
    left = min(left, *(node["pos"][0] for node in graph["nodes"]))
    right = max(group["bounding"][0] + group["bounding"][2] for group in graph["groups"])
    bottom = max(group["bounding"][1] + group["bounding"][3] for group in graph["groups"])
    width, height = (side - edge for side, edge in zip(WINDOW, FRAME, strict=True))
    whole = min(width / (right - left), height / bottom, 1.0)
    below = min(whole, (height - MENUS) / bottom)  # the menus
    covered = below < min(SCARCE, whole)
    scale = round(whole if covered else below, 3)
    upper = FRAME[1] + MENUS * (not covered)
    ids = {node["_meta"]["title"]: int(name) for name, node in api.items()}
    saved = [int(name) for name, node in api.items() if node["class_type"] == "SaveImage"]
    graph["extra"] |= {
        "ds": {"scale": scale, "offset": [round(FRAME[0] / scale - left), round(upper / scale)]},
        "linearMode": False,
        "linearData": {
            "inputs": [[ids[title], widget] for title, widget in texts.inputs],
            "outputs": saved,
        },
    }


def _write(page: Page, name: str, texts: Texts, graph: dict) -> bool:
    """Write the graph file; whether it makes the prompt that it came from."""
    api = prompt_of(name)
    result = page.evaluate(ROUND_TRIP, graph)
    exact = not result["missing"] and _essence(result["prompt"]) == _essence(api)
    text = json.dumps(graph, indent=1) + "\n"
    (WORKFLOWS / f"{texts.name}.json").write_text(text, encoding="utf-8")
    if files_of(api):
        draw(page, graph, texts.name, WORKFLOWS / f"{texts.name}.jpg")
    print(f"{texts.name}: {len(api)} nodes, {'exact' if exact else 'NOT EXACT'}")
    if not exact:
        print(f"  missing types: {result['missing']}", file=sys.stderr)
        _explain(_essence(result["prompt"]), _essence(api))
    return exact


def _essence(prompt: dict) -> dict:
    """Return what a prompt does: classes and inputs, without titles."""
    return {
        str(node_id): (node["class_type"], dict(sorted(node["inputs"].items())))
        for node_id, node in prompt.items()
    }


def _explain(ours: dict, theirs: dict) -> None:
    for node_id in sorted(ours.keys() | theirs.keys()):
        if ours.get(node_id) != theirs.get(node_id):
            print(
                f"  {node_id}: {ours.get(node_id)}\n    != {theirs.get(node_id)}", file=sys.stderr
            )


if __name__ == "__main__":
    raise SystemExit(main())
