"""The host's own frontend in a headless Chromium: graphs opened, pictures shown, nodes measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from api_client import Server
from chromium import NO_CHROMIUM, find_chromium
from headless import PACK
from PIL import Image

__all__ = [
    "RENDERERS",
    "load_graph",
    "opened_frontend",
    "overlaps",
    "rectangles",
    "settle",
    "show_pictures",
    "write_picture",
]

# The frontend draws nodes on a canvas, or as elements of the page ("Nodes 2.0").
RENDERERS = {"canvas": False, "nodes 2.0": True}

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
START_MILLISECONDS = 600_000  # a busy machine may need minutes
SETTLE_MILLISECONDS = 400  # between two looks at nodes that may still be growing

READY = """window.app && window.app.graph && window.LiteGraph
    && 'ZMagicSampler' in window.LiteGraph.registered_node_types"""
LOAD = "async graph => { await app.loadGraphData(graph); }"

# Shows news as if the host had sent it: what a node has saved, or a sampler's picture so far.
# It takes the same way through the frontend as in a run.
SHOW = """async ([saved, sampled, texts, picture]) => {
    const blob = await (await fetch(`/view?filename=${picture}&type=input`)).blob();
    const images = [{filename: picture, subfolder: '', type: 'input'}];
    const tell = (id, output) => app.api.dispatchCustomEvent(
        'executed', {node: id, display_node: id, output, prompt_id: '1'});
    saved.forEach(id => tell(id, {images}));
    texts.forEach(id => tell(id, {text: [Array(200).fill('text').join(' ')]}));
    sampled.forEach(id => app.api.dispatchCustomEvent('b_preview_with_metadata', {
        blob, nodeId: id, displayNodeId: id, parentNodeId: id, realNodeId: id, jobId: '1'}));
    app.canvas.setDirty(true, true);
}"""
ZOOM = """scale => {
    app.canvas.ds.scale = scale;
    app.canvas.ds.offset = [60 / scale, 60 / scale];
    app.canvas.setDirty(true, true);
}"""
# Left, top, width and height with the title, in pixels of the graph.
ON_CANVAS = """() => Object.fromEntries(app.graph.nodes.map(node => [String(node.id), [
    node.pos[0], node.pos[1] - LiteGraph.NODE_TITLE_HEIGHT,
    node.size[0], node.size[1] + LiteGraph.NODE_TITLE_HEIGHT]]))"""
IN_PAGE = """() => {
    const {scale, offset} = app.canvas.ds;
    return Object.fromEntries([...document.querySelectorAll('[data-node-id]')].map(element => {
        const box = element.getBoundingClientRect();
        return [element.dataset.nodeId, [
            box.x / scale - offset[0], box.y / scale - offset[1],
            box.width / scale, box.height / scale]];
    }));
}"""
SCALE = 0.25  # all of a graph is in the window: elsewhere no element of the page is made


@contextmanager
def opened_frontend(server: Server, renderer: str) -> Iterator[Any]:
    """A playwright page with the frontend of ``server``, which draws by ``renderer``.

    Raises FileNotFoundError where there is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    executable = find_chromium()
    if executable is None:
        raise FileNotFoundError(NO_CHROMIUM)
    settings = {"Comfy.VueNodes.Enabled": RENDERERS[renderer], "Comfy.TutorialCompleted": True}
    server.post("/settings", settings)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=executable, args=OPTIONS)
        try:
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            page.set_default_timeout(START_MILLISECONDS)
            page.goto(server.address, wait_until="domcontentloaded")
            page.wait_for_function(READY)
            page.wait_for_timeout(3000)  # it restores its last graph after it is ready
            yield page
        finally:
            browser.close()
            server.post("/settings", {"Comfy.VueNodes.Enabled": False})


def load_graph(page: Any, graph: dict) -> None:
    """Open a graph file's content, and wait until its nodes and pictures are drawn."""
    page.evaluate(LOAD, graph)
    page.evaluate(ZOOM, SCALE)
    settle(page)


def show_pictures(page: Any, graph: dict, picture: str) -> None:
    """Let every node that shows something after a run show it: pictures, previews, texts.

    Args:
        page: with the graph opened.
        graph: its content.
        picture: a file in the host's input folder.
    """
    shown = nodes_that_show(graph)
    page.evaluate(SHOW, [shown["pictures"], shown["previews"], shown["texts"], picture])
    settle(page)


def settle(page: Any) -> None:
    """Wait until no node changes any more, as drawn by either renderer."""
    before = None
    while before != (now := (page.evaluate(ON_CANVAS), page.evaluate(IN_PAGE))):
        before = now
        page.wait_for_timeout(SETTLE_MILLISECONDS)


def nodes_that_show(graph: dict) -> dict[str, list[str]]:
    """Ids of the nodes that show pictures, previews of sampling, and texts when they have run."""
    kinds = {
        "pictures": ("SaveImage", "PreviewImage"),
        "previews": ("KSampler", "SamplerCustomAdvanced", "ZMagicSampler"),
        "texts": ("PreviewAny",),
    }
    return {
        shown: [str(node["id"]) for node in graph["nodes"] if node["type"] in types]
        for shown, types in kinds.items()
    }


def rectangles(page: Any, renderer: str) -> dict[str, tuple[float, float, float, float]]:
    """Left, top, width and height of each node with its title, in pixels of the graph."""
    boxes = page.evaluate(IN_PAGE if RENDERERS[renderer] else ON_CANVAS)
    return {node: tuple(box) for node, box in boxes.items()}


def overlaps(boxes: dict[str, tuple[float, float, float, float]]) -> list[tuple[str, str]]:
    """Pairs of nodes that cover each other."""
    names = sorted(boxes, key=int)
    pairs = ((a, b) for k, a in enumerate(names) for b in names[k + 1 :])
    return [(a, b) for a, b in pairs if _overlap(boxes[a], boxes[b])]


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(
        a[axis] < b[axis] + b[axis + 2] and b[axis] < a[axis] + a[axis + 2] for axis in (0, 1)
    )


def write_picture(folder: Path, name: str, size: tuple[int, int]) -> None:
    """A picture of ``size`` (width, height) for the host's input folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(PACK / "demo_models" / "photograph.jpg") as photograph:
        photograph.resize(size).save(folder / name)
