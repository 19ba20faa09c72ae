"""Turn the API-format workflows into graph files: ``python scripts/make_workflows.py``.

For each ``workflows/api/NAME.json`` the host's own frontend, in headless Chromium, makes the graph,
measures its nodes in both renderers with pictures in them, and turns ``workflows/NAME.json`` back
into a prompt, which must equal the one it came from: what a user drags in does the same as what a
service posts.

Needs a Chromium (CHROMIUM names its executable).
"""

import json
import sys

from api_client import running_server
from frontend import (
    RENDERERS,
    load_graph,
    opened_frontend,
    rectangles,
    show_pictures,
    write_picture,
)
from headless import PACK
from packages import STATE
from playwright.sync_api import Page

WORKFLOWS = PACK / "workflows"
API_FILES = sorted(WORKFLOWS.glob("api/*.json"))

SHOWING_PICTURES = ("LoadImage", "PreviewImage", "SaveImage")
TITLE = 30  # pixels of a node's title, which its size does not count

# Where the frontend offers to download a model that a graph names: file, folder under models, link.
HUB = "https://huggingface.co"
MODELS = (
    (
        "v1-5-pruned-emaonly-fp16.safetensors",
        "checkpoints",
        f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
        "v1-5-pruned-emaonly-fp16.safetensors",
    ),
    (
        "sd_xl_base_1.0.safetensors",
        "checkpoints",
        f"{HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
    ),
    (
        "flux1-dev-fp8.safetensors",
        "checkpoints",
        f"{HUB}/Comfy-Org/flux1-dev/resolve/main/flux1-dev-fp8.safetensors",
    ),
    (
        "ViT-B-32_laion2b_s34b_b79k.safetensors",
        "clip_vision",
        f"{HUB}/laion/CLIP-ViT-B-32-laion2B-s34B-b79K/resolve/main/open_clip_model.safetensors",
    ),
    *(
        (name, "insightface", f"{HUB}/fal/AuraFace-v1/resolve/main/{name}")
        for name in ("glintr100.onnx", "scrfd_10g_bnkps.onnx", "2d106det.onnx")
    ),
)

COLUMN, GAP = 380, 30  # pixels between the left sides of columns, and between the nodes of one

# A picture of the usual shape of a portrait, so that what shows it is as tall as it gets.
PICTURE, PICTURE_SIZE = "example.png", (512, 768)

LOAD_API = "async ([api, name]) => { await app.loadApiJson(api, name); }"
# Sizes as small as a node's content allows, and seeds that stay: a second run repeats the first.
SETTLE = """() => {
    for (const node of app.graph.nodes) {
        node.setSize(node.computeSize());
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
    """Write all graph files; the exit status tells whether every round trip was exact."""
    work = PACK / ".host" / "make_workflows"
    write_picture(STATE / "server" / "input", PICTURE, PICTURE_SIZE)
    graphs: dict[str, dict] = {}
    boxes: dict[str, list[dict]] = {file.stem: [] for file in API_FILES}
    with running_server(work, work / "server.log", cpu=True) as server:
        for renderer in RENDERERS:
            with opened_frontend(server, renderer) as page:
                for name in boxes:
                    if name not in graphs:
                        graphs[name] = _graph(page, name)
                    boxes[name].append(_measured(page, renderer, graphs[name]))
        for name, graph in graphs.items():
            _arrange(graph, _columns(_api(name)), boxes[name])
        with opened_frontend(server, "canvas") as page:
            exact = [_write(page, name, graph) for name, graph in graphs.items()]
    return 0 if all(exact) else 1


def _api(name: str) -> dict:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))


def _graph(page: Page, name: str) -> dict:
    page.evaluate(LOAD_API, [_api(name), name])
    return page.evaluate(SETTLE)


def _measured(page: Page, renderer: str, graph: dict) -> dict[str, tuple[float, ...]]:
    """Return where each node is with its picture, if it shows one."""
    load_graph(page, graph)
    show_pictures(page, graph, PICTURE)
    return rectangles(page, renderer)


def _arrange(graph: dict, columns: list[list[str]], boxes: list[dict]) -> None:
    """Put the nodes into columns with room for what each renderer makes of them.

    What always shows a picture has its size from the start; what shows one for the time of a run
    only has the room.
    """
    nodes = {str(node["id"]): node for node in graph["nodes"]}
    for column, ids in enumerate(columns):
        top = 0.0
        for node_id in ids:
            node = nodes[node_id]
            node["pos"] = [column * COLUMN, round(top)]
            if node["type"] in SHOWING_PICTURES:
                node["size"] = [node["size"][0], round(boxes[0][node_id][3]) - TITLE]
            top += max(box[node_id][3] for box in boxes) + GAP


def _write(page: Page, name: str, graph: dict) -> bool:
    """Write the graph file; whether it makes the prompt that it came from."""
    api = _api(name)
    result = page.evaluate(ROUND_TRIP, graph)
    exact = not result["missing"] and _essence(result["prompt"]) == _essence(api)
    _link_models(graph)
    text = json.dumps(graph, indent=1) + "\n"
    (WORKFLOWS / f"{name}.json").write_text(text, encoding="utf-8")
    print(f"{name}: {len(graph['nodes'])} nodes, {'exact' if exact else 'NOT EXACT'}")
    if not exact:
        print(f"  missing types: {result['missing']}", file=sys.stderr)
        _explain(_essence(result["prompt"]), _essence(api))
    return exact


def _link_models(graph: dict) -> None:
    """Tell the frontend where the files are that the graph's loaders name."""
    for node in graph["nodes"]:
        named = [model for model in MODELS if model[0] in (node.get("widgets_values") or ())]
        if named:
            node["properties"]["models"] = [
                {"name": name, "url": link, "directory": folder} for name, folder, link in named
            ]


def _columns(api: dict) -> list[list[str]]:
    """Node ids by their distance from the inputs, so that wires run to the right."""
    depth: dict[str, int] = {}

    def depth_of(node_id: str) -> int:
        if node_id not in depth:
            links = [v[0] for v in api[node_id]["inputs"].values() if isinstance(v, list)]
            depth[node_id] = 1 + max(map(depth_of, links), default=-1)
        return depth[node_id]

    columns: list[list[str]] = [[] for _ in range(1 + max(map(depth_of, api)))]
    for node_id in api:
        columns[depth[node_id]].append(node_id)
    return columns


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
