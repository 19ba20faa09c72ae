"""Turn the API-format workflows into graph files: ``python scripts/make_workflows.py``.

For each ``workflows/api/NAME.json`` the host's own frontend, in headless Chromium, lays out the
graph, writes ``workflows/NAME.json`` and turns that file back into a prompt, which must equal the
one it came from: what a user drags in does the same as what a service posts.

Needs the Python package playwright and a Chromium (CHROMIUM names its executable).
"""

import json
import os
import shutil
import sys
from pathlib import Path

from api_client import running_server
from playwright.sync_api import Page, sync_playwright

PACK = Path(__file__).resolve().parents[1]
WORKFLOWS = PACK / "workflows"

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
)

COLUMN, ROW = 380, 60  # pixels between the columns of a graph, and between the nodes of one

READY = """window.app && window.app.graph && window.LiteGraph
    && 'ZMagicSampler' in window.LiteGraph.registered_node_types"""
LOAD_API = "async ([api, name]) => { await app.loadApiJson(api, name); }"
ARRANGE = """([columns, width, gap]) => {
    const nodes = Object.fromEntries(app.graph.nodes.map(n => [String(n.id), n]));
    columns.forEach((ids, c) => {
        let y = 0;
        for (const id of ids) {
            const node = nodes[id];
            node.setSize(node.computeSize());
            node.pos = [c * width, y];
            y += node.size[1] + gap;
        }
    });
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
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with running_server(work, work / "server.log", cpu=True) as server, sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=executable,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.goto(server.address, wait_until="domcontentloaded")
        page.wait_for_function(READY, timeout=180_000)
        page.wait_for_timeout(3000)  # the frontend restores its last graph after it is ready
        exact = [_convert(page, file) for file in sorted(WORKFLOWS.glob("api/*.json"))]
        browser.close()
    return 0 if all(exact) else 1


def _convert(page: Page, file: Path) -> bool:
    api = json.loads(file.read_text(encoding="utf-8"))
    page.evaluate(LOAD_API, [api, file.stem])
    graph = page.evaluate(ARRANGE, [_columns(api), COLUMN, ROW])
    result = page.evaluate(ROUND_TRIP, graph)
    exact = not result["missing"] and _essence(result["prompt"]) == _essence(api)
    _link_models(graph)
    (WORKFLOWS / file.name).write_text(json.dumps(graph, indent=1) + "\n", encoding="utf-8")
    print(f"{file.stem}: {len(graph['nodes'])} nodes, {'exact' if exact else 'NOT EXACT'}")
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
    """What a prompt does: classes and inputs, without titles."""
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
