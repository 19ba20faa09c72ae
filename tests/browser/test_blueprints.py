"""Blueprints are found by their names, and make graphs that ComfyUI accepts."""

import json
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SUBGRAPHS = Path(__file__).resolve().parents[2] / "subgraphs"
ABOUT = tomllib.loads((SUBGRAPHS / "blueprints.toml").read_text(encoding="utf-8"))

# A graph of someone who has a model; what the blueprint gives is missing in it.
SAMPLER = {"seed": 1, "steps": 1, "cfg": 1.0, "denoise": 1.0, "scheduler": "karras"}
GRAPH = {
    "1": ("ZMagicLoadDemo", {}),
    "2": ("EmptyLatentImage", {"width": 128, "height": 128, "batch_size": 1}),
    "3": (
        "KSampler",
        {
            "positive": ["6", 0],
            "negative": ["6", 0],
            "latent_image": ["2", 0],
            "sampler_name": "euler",
            **SAMPLER,
        },
    ),
    "4": ("VAEDecode", {"samples": ["3", 0], "vae": ["1", 2]}),
    "5": ("SaveImage", {"images": ["4", 0], "filename_prefix": "blueprint"}),
    "6": ("CLIPTextEncode", {"clip": ["1", 1], "text": ""}),
}
LOAD_API = "async api => { await app.loadApiJson(api, 'blueprint'); }"
# By types, as a user draws wires: the sockets of loader and prompt in, the result out.
CONNECT = """async () => {
    const find = type => app.graph.nodes.find(node => node.type === type);
    const held = app.graph.nodes.find(node => node.isSubgraphNode?.());
    const givers = [find('ZMagicLoadDemo'), find('CLIPTextEncode')];
    for (const [slot, input] of held.inputs.entries()) {
        if (input.widget) continue;
        const place = node => node.outputs.findIndex(out => out.type === input.type);
        const giver = givers.find(node => place(node) >= 0);
        giver.connect(place(giver), held, slot);
    }
    const gives = held.outputs[0].type;
    const [target, name] = gives === 'MODEL' ? ['KSampler', 'model'] : ['SaveImage', 'images'];
    held.connect(0, find(target), find(target).inputs.findIndex(input => input.name === name));
    return {
        open: held.inputs.filter(input => !input.widget && input.link === null).length,
        widgets: held.widgets.map(widget => widget.name),
        title: held.title,
        prompt: (await app.graphToPrompt()).output,
    };
}"""


@pytest.fixture(scope="module", params=["canvas", "nodes 2.0"])
def page(request, frontend, server):
    with frontend.opened_frontend(server, request.param) as page:
        yield page


def insert(frontend, page, name: str) -> None:
    """Add a blueprint as a user does: double click, its name, the first result."""
    page.evaluate("app.canvas.ds.offset = [-9000, -9000]; app.canvas.setDirty(true, true)")
    page.wait_for_timeout(300)  # no node is where the click goes
    box = frontend.open_search(page, 1200, 700)
    box.fill(name)
    page.locator("#results-list [role=option]").filter(has_text=name).first.click()
    box.wait_for(state="hidden")  # it takes clicks as long as it is seen
    page.mouse.click(1200, 700)
    assert page.evaluate("app.canvas.state.ghostNodeId") is None, "it still hangs on the pointer"
    assert page.evaluate("app.graph.nodes.some(node => node.isSubgraphNode?.())")


@pytest.mark.parametrize("about", ABOUT.values(), ids=ABOUT.keys())
def test_a_blueprint_is_inserted_and_its_prompt_accepted(frontend, page, server, about):
    page.evaluate(LOAD_API, {i: {"class_type": k, "inputs": v} for i, (k, v) in GRAPH.items()})
    insert(frontend, page, about["name"])
    made = page.evaluate(CONNECT)
    sockets = {socket["name"] for socket in about["inputs"]}
    assert made["title"] == about["name"] and made["open"] == 0
    assert {*made["widgets"]} <= sockets and {"strength", "preset"} <= {*made["widgets"]}

    api = json.loads((SUBGRAPHS / "api" / f"{file_of(about)}.json").read_text(encoding="utf-8"))
    kinds = [node["class_type"] for node in made["prompt"].values()]
    assert all(node["class_type"] in kinds for node in api.values())
    prompt_id = server.submit(made["prompt"])  # raises where a node or an input is refused
    if any("Load" in node["class_type"] for node in api.values()):  # files that are not here
        server.post("/queue", {"delete": [prompt_id]})
        server.post("/interrupt", {})
        return
    with ThreadPoolExecutor(1) as other:  # this thread has the browser's event loop
        outputs = other.submit(server.wait, prompt_id).result()
    assert any("images" in output for output in outputs.values())


def file_of(about: dict) -> str:
    return next(name for name, other in ABOUT.items() if other is about)


def test_there_is_a_blueprint_for_each_description_and_no_other():
    assert {file.stem for file in SUBGRAPHS.glob("*.json")} == {a["name"] for a in ABOUT.values()}
    assert {file.stem for file in (SUBGRAPHS / "api").glob("*.json")} == set(ABOUT)
