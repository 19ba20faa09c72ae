"""The host's own frontend in a headless Chromium: graphs opened, pictures shown, nodes measured."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from api_client import Server
from chromium import NO_CHROMIUM, find_chromium
from headless import PACK
from PIL import Image

__all__ = [
    "RENDERERS",
    "cut_off",
    "load_graph",
    "note_heights",
    "open_search",
    "opened_browser",
    "opened_frontend",
    "overlaps",
    "rectangles",
    "settle",
    "show_pictures",
    "show_reports",
    "unread_texts",
    "wires_behind_nodes",
    "write_pictures",
]

# The frontend draws nodes on a canvas, or as elements of the page ("Nodes 2.0").
RENDERERS = {"canvas": False, "nodes 2.0": True}

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
START_MILLISECONDS = 600_000  # a busy machine may need minutes
MOST_LOOKS = 100
SETTLE_MILLISECONDS = 400  # between two looks at nodes that may still be growing

READY = """window.app && window.app.graph && window.LiteGraph
    && 'ZMagicSampler' in window.LiteGraph.registered_node_types"""
LOAD = "async graph => { await app.loadGraphData(graph); }"

# Shows news as if the host had sent it: what a node has saved, or a sampler's picture so far.
# It takes the same way through the frontend as in a run.
SHOW = """async ([saved, sampled, picture]) => {
    const blob = await (await fetch(`/view?filename=${picture}&type=input`)).blob();
    const images = [{filename: picture, subfolder: '', type: 'input'}];
    saved.forEach(id => app.api.dispatchCustomEvent(
        'executed', {node: id, display_node: id, output: {images}, prompt_id: '1'}));
    sampled.forEach(id => app.api.dispatchCustomEvent('b_preview_with_metadata', {
        blob, nodeId: id, displayNodeId: id, parentNodeId: id, realNodeId: id, jobId: '1'}));
    app.canvas.setDirty(true, true);
}"""
REPORTS = """([saved, pictured, texts, picture, report]) => {
    const tell = (id, output) => app.api.dispatchCustomEvent(
        'executed', {node: id, display_node: id, output, prompt_id: '1'});
    const image = filename => ({images: [{filename, subfolder: '', type: 'input'}]});
    const sentence = 'Reference Image +27 % towards the goal; energy of Color Palette 11 % higher';
    saved.forEach(id => tell(id, image(picture)));
    pictured.forEach(id => {
        tell(id, {...image(report), text: [sentence]});
        app.api.dispatchCustomEvent('progress_text', {nodeId: id, text: sentence});
    });
    texts.forEach(id => tell(id, {text: [Array(200).fill('text').join(' ')]}));
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
    node.collapsed ? node._collapsed_width ?? node.size[0] : node.size[0],
    (node.collapsed ? 0 : node.size[1]) + LiteGraph.NODE_TITLE_HEIGHT]]))"""
IN_PAGE = """() => {
    const {scale, offset} = app.canvas.ds;
    return Object.fromEntries([...document.querySelectorAll('[data-node-id]')].map(element => {
        const box = element.getBoundingClientRect();
        return [element.dataset.nodeId, [
            box.x / scale - offset[0], box.y / scale - offset[1],
            box.width / scale, box.height / scale]];
    }));
}"""
# A note alone, at each width; how tall it must be to show all of its text, with the title.
NOTE = """async ([text, widths]) => {
    app.graph.clear();
    const note = LiteGraph.createNode('MarkdownNote');
    app.graph.add(note);
    note.pos = [100, 100];
    note.widgets[0].value = text;
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [0, 0];
    const heights = [];
    for (const width of [widths[0], ...widths]) {  // the first one is only being made
        note.setSize([width, 90]);
        app.canvas.setDirty(true, true);
        await new Promise(resolve => setTimeout(resolve, 300));
        const shown = document.querySelector('[data-node-id] .comfy-markdown-content')
            ?? note.widgets[0].element.querySelector('.tiptap');
        const parts = [...shown.children].map(child => child.getBoundingClientRect());
        const bottom = Math.max(...parts.map(part => part.bottom));
        heights.push(Math.ceil(bottom - Math.min(...parts.map(part => part.top))));
    }
    return heights.slice(1);
}"""
NOTE_FRAME = 56  # pixels above and below the text of a note, with the title

# Wires that are drawn over the inside of nodes: which node, and how often its points are hit.
BEHIND = """([boxes, edge, wire]) => {
    const all = Object.values(boxes);
    const left = Math.min(...all.map(box => box[0])), top = Math.min(...all.map(box => box[1]));
    const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    pen.canvas.width = Math.ceil(Math.max(...all.map(box => box[0] + box[2])) - left);
    pen.canvas.height = Math.ceil(Math.max(...all.map(box => box[1] + box[3])) - top);
    pen.translate(-left, -top);
    pen.lineWidth = wire;
    const paths = [...app.canvas.renderedPaths].map(part => part.path).filter(path => path);
    paths.forEach(path => pen.stroke(path));
    // Sockets of a folded node lie at its ends on the canvas, and in a heap there in "nodes 2.0".
    const reach = (node, x, width) => {
        const depths = (slots, linked, depth) => Math.max(0, ...(slots ?? [])
            .flatMap((slot, i) => linked(slot) ? [depth(i)] : []));
        return [
            depths(node.inputs, slot => slot.link != null, i => node.getInputPos(i)[0] - x),
            depths(node.outputs, slot => slot.links?.length,
                i => x + width - node.getOutputPos(i)[0])];
    };
    const hit = Object.entries(boxes).filter(([id, [x, y, width, height]]) => {
        const node = app.graph.nodes.find(node => String(node.id) === id);
        const [before, behind] = node.flags?.collapsed
            ? reach(node, x, width).map(depth => depth + wire) : [edge, edge];
        const inside = [x - left + before, y - top + 4, width - before - behind, height - 8];
        return pen.getImageData(...inside.map(Math.round)).data.some(value => value);
    });
    return {wires: paths.length, hit: hit.map(([id]) => id)};
}"""
EDGE = 18  # pixels at the sides of a node, where its slots are
WIRE = 3  # pixels that a wire is wide

# Texts of several lines that are longer than what shows them, by the beginning of each.
UNREAD = """() => {
    const shown = [...document.querySelectorAll('[data-node-id] textarea, .comfy-multiline-input'
        + ', .dom-widget .tiptap, [data-node-id] .comfy-markdown-content')];
    return shown.filter(part => part.clientHeight && part.scrollHeight > part.clientHeight + 4)
        .map(part => (part.value ?? part.innerText).slice(0, 40));
}"""

# How many pixels each node must grow, by its id, to show its texts whole; as drawn in the page.
CUT_OFF = """() => Object.fromEntries([...document.querySelectorAll('[data-node-id]')]
    .map(element => [element.dataset.nodeId, [...element.querySelectorAll('textarea')]
        .reduce((sum, text) => sum + Math.max(text.scrollHeight - text.clientHeight, 0), 0)])
    .filter(([, pixels]) => pixels))"""

LOOK_AT = """([left, top]) => {
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [200 - left, 200 - top];
    app.canvas.setDirty(true, true);
}"""
MARGIN, SEEN = 150, (1200, 650)  # around what it looks at: to the left and above, all in all
LOOK_MILLISECONDS = 150
SEARCH_MILLISECONDS = 5000

REPORT = "report.png"  # of the shape of a report

SCALE = 0.25  # all of a graph is in the window: elsewhere no element of the page is made


@contextmanager
def opened_frontend(server: Server, renderer: str) -> Iterator[Any]:
    """A playwright page with the frontend of ``server``, which draws by ``renderer``.

    Raises FileNotFoundError where there is no Chromium.
    """
    settings = {"Comfy.VueNodes.Enabled": RENDERERS[renderer], "Comfy.TutorialCompleted": True}
    server.post("/settings", settings)
    try:
        with opened_browser(server, (1600, 1000)) as page:
            page.wait_for_timeout(3000)  # it restores its last graph after it is ready
            yield page
    finally:
        server.post("/settings", {"Comfy.VueNodes.Enabled": False})


@contextmanager
def opened_browser(server: Server, window: tuple[int, int]) -> Iterator[Any]:
    """A playwright page of a new browser at ``server``, as its users have set it up.

    Args:
        server: a running host.
        window: width and height in pixels.

    Raises FileNotFoundError where there is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    executable = find_chromium()
    if executable is None:
        raise FileNotFoundError(NO_CHROMIUM)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=executable, args=OPTIONS)
        try:
            page = browser.new_page(viewport=dict(zip(("width", "height"), window, strict=True)))
            page.set_default_timeout(START_MILLISECONDS)
            page.goto(server.address, wait_until="domcontentloaded")
            page.wait_for_function(READY)
            yield page
        finally:
            browser.close()


def load_graph(page: Any, graph: dict) -> None:
    """Open a graph file's content, and wait until its nodes and pictures are drawn."""
    page.evaluate(LOAD, graph)
    page.evaluate(ZOOM, SCALE)
    settle(page)


def show_pictures(page: Any, graph: dict, picture: str = "example.png") -> None:
    """Let every node that shows a picture in a run or after it show one.

    Args:
        page: with the graph opened.
        graph: its content.
        picture: a file in the host's input folder.
    """
    shown = nodes_that_show(graph)
    page.evaluate(SHOW, [shown["pictures"], shown["previews"], picture])
    settle(page)


def show_reports(page: Any, graph: dict, picture: str = "example.png") -> None:
    """Let every node that shows something after a run do so: pictures, reports, texts.

    Args:
        page: with the graph opened anew: previews go when a run is over.
        graph: its content.
        picture: what is shown as made; a file in the host's input folder.
    """
    shown = nodes_that_show(graph)
    kinds = (shown[kind] for kind in ("pictures", "reports", "texts"))
    page.evaluate(REPORTS, [*kinds, picture, REPORT])
    settle(page)


def note_heights(page: Any, text: str, widths: list[int]) -> dict[int, int]:
    """How tall a note must be at each width to show all of its text, with the title."""
    heights = page.evaluate(NOTE, [text, widths])
    return {w: h + NOTE_FRAME for w, h in zip(widths, heights, strict=True)}


def settle(page: Any) -> None:
    """Wait until no node changes any more, as drawn by either renderer."""
    before = None
    for _ in range(MOST_LOOKS):
        if before == (now := (page.evaluate(ON_CANVAS), page.evaluate(IN_PAGE))):
            return
        before = now
        page.wait_for_timeout(SETTLE_MILLISECONDS)
    raise TimeoutError("the nodes of the graph do not come to rest")


def nodes_that_show(graph: dict) -> dict[str, list[str]]:
    """Ids of the nodes that show pictures, previews of sampling, reports and texts."""
    kinds = {
        "pictures": ("SaveImage", "PreviewImage"),
        "previews": ("KSampler", "SamplerCustomAdvanced", "ZMagicSampler"),
        "reports": ("ZMagicSampler", "ZMagicReport"),
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


def wires_behind_nodes(
    page: Any, boxes: dict[str, tuple[float, float, float, float]], scale: float
) -> list[str]:
    """Ids of the nodes that a wire is drawn behind.

    Args:
        page: with the graph opened.
        boxes: see ``rectangles``.
        scale: at which all of the graph is in the window: elsewhere no wire is drawn.

    Raises RuntimeError if no wire is drawn at all.
    """
    page.evaluate(ZOOM, scale)
    settle(page)
    found = page.evaluate(BEHIND, [boxes, EDGE, WIRE])
    if not found["wires"]:
        raise RuntimeError("no wire is drawn")
    return sorted(found["hit"], key=int)


def cut_off(page: Any) -> dict[str, int]:
    """By how many pixels nodes are too low for their texts, by id; in "nodes 2.0" alone."""
    return page.evaluate(CUT_OFF)


def unread_texts(page: Any, boxes: dict[str, tuple[float, float, float, float]]) -> list[str]:
    """The beginnings of texts of several lines that are cut off, wherever they are."""
    unread: set[str] = set()
    unseen = sorted(boxes.values())
    while unseen:
        left, top, *_ = unseen[0]
        page.evaluate(LOOK_AT, [left, top])
        page.wait_for_timeout(LOOK_MILLISECONDS)
        unread |= set(page.evaluate(UNREAD))
        unseen = [box for box in unseen[1:] if not _in_sight(box, left, top)]
    return sorted(unread)


def _in_sight(box: tuple[float, ...], left: float, top: float) -> bool:
    """Whether all of a box is in the window that looks at the node at ``left, top``."""
    sides = zip(box[:2], box[2:], (left, top), SEEN, strict=True)
    return all(start - MARGIN < at and at + size < start + seen for at, size, start, seen in sides)


def open_search(page: Any, x: int, y: int) -> Any:
    """Open the search for nodes by a double click on the canvas; return its box."""
    from playwright.sync_api import TimeoutError as NotThere

    box = page.get_by_placeholder("Add a node")
    for _ in range(MOST_LOOKS):
        page.mouse.dblclick(x, y)
        with suppress(NotThere):  # to a busy page they were two single clicks
            box.wait_for(timeout=SEARCH_MILLISECONDS)
            return box
    raise TimeoutError("a double click on the canvas does not open the search for nodes")


def write_pictures(folder: Path) -> None:
    """Write the pictures that graphs name and nodes show here into the host's input folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(PACK / "demo_models" / "photograph.jpg") as photograph:
        # The usual shape of a portrait, so that what shows it is as tall as it gets.
        photograph.resize((512, 768)).save(folder / "example.png")
        photograph.resize((800, 640)).save(folder / REPORT)
    for picture in (PACK / "extras").glob("*.jpg"):
        shutil.copy(picture, folder)
