"""Small pictures of graphs in the browser: drawings in place of results, and one graph in use."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from frontend import load_graph, settle

__all__ = ["MARK", "draw", "photograph"]

SIDE = 512  # pixels of a drawing, which Templates show as a square
MARK = "Drawing of the graph, not a result"
QUALITY = 80
LOADING = 1000  # milliseconds for pictures in nodes
DONE = 6000  # milliseconds until nodes are drawn at another scale, and news of a run are gone

# The graph as the canvas draws it, cut to its groups; without what is not drawn there: long texts.
CUT = """async ([left, top, width, height]) => {
    const {canvas, ds} = app.canvas, ratio = window.devicePixelRatio;
    ds.scale = Math.min(canvas.width / ratio / width, canvas.height / ratio / height);
    ds.offset = [-left, -top];
    app.canvas.show_info = false;
    // Files that this machine lacks are no part of the drawing.
    for (const node of app.graph.nodes) node.has_errors = false;
    app.canvas.draw(true, true);
    const part = document.createElement('canvas');
    [part.width, part.height] = [width, height].map(side => Math.round(side * ds.scale * ratio));
    part.getContext('2d').drawImage(canvas, 0, 0);
    return part.toDataURL();
}"""
CARD = """<body style="margin: 0; height: 100vh; display: flex; flex-direction: column;
    background: #202024; color: #f2f2f2; font-family: sans-serif">
  <div style="flex: 1; display: flex; align-items: center; padding: 0 12px">
    <img src="{picture}" style="width: 100%; border-radius: 6px">
  </div>
  <div style="padding: 0 20px; font-size: 34px; font-weight: bold; line-height: 1.15">{name}</div>
  <div style="padding: 10px 20px 22px; font-size: 21px; color: #c9b458">{mark}</div>
</body>"""

SETTINGS = (
    "async shown => { await app.extensionManager.setting.set('Comfy.Minimap.Visible', shown) }"
)
FIT = """({scale, offset}) => {
    app.canvas.ds.scale = scale;
    app.canvas.ds.offset = offset;
    app.canvas.setDirty(true, true);
}"""
RUN = "async () => { await app.queuePrompt(0, 1) }"


def draw(page: Any, graph: dict, name: str, target: Path) -> None:
    """Write a drawing of a graph, marked as one.

    Args:
        page: the frontend, in the renderer "canvas".
        graph: a graph file's content.
        name: what is written below; a number before it is left out.
        target: a JPEG file.
    """
    load_graph(page, graph)
    page.evaluate(CUT, _frame(graph))  # pictures in nodes are loaded when they are first drawn
    page.wait_for_timeout(LOADING)
    picture = page.evaluate(CUT, _frame(graph))
    text = {"name": escape(name.lstrip("0123456789 ")), "mark": MARK}
    card = page.context.browser.new_page(viewport={"width": SIDE, "height": SIDE})
    try:
        card.set_content(CARD.format(picture=picture, **text))
        card.screenshot(path=target, type="jpeg", quality=QUALITY)
    finally:
        card.close()


def photograph(page: Any, server: Any, graph: dict, target: Path, quality: int) -> None:
    """Run a graph in the frontend, and write what the window shows then, as a JPEG file."""
    page.evaluate(SETTINGS, False)
    load_graph(page, graph)
    before = set(server.get("/history"))
    page.evaluate(RUN)
    while not set(server.get("/history")) - before:
        page.wait_for_timeout(500)
    page.evaluate(FIT, graph["extra"]["ds"])
    settle(page)
    page.wait_for_timeout(DONE)
    page.screenshot(path=target, type="jpeg", quality=quality)
    page.evaluate(SETTINGS, True)


def _frame(graph: dict) -> list[float]:
    """Left, top, width and height of all groups and of the nodes outside."""
    boxes = [group["bounding"] for group in graph["groups"]]
    boxes += [[*node["pos"], *node["size"]] for node in graph["nodes"]]
    left, top = (min(box[axis] for box in boxes) for axis in (0, 1))
    sides = [max(box[axis] + box[axis + 2] for box in boxes) for axis in (0, 1)]
    return [left, top, sides[0] - left, sides[1] - top]
