"""Do what a new user does, and keep what they see: ``python scripts/walk_through.py``.

A ComfyUI that nobody has used yet, in a browser that nobody has used yet, 1600 x 900 pixels. Five
tasks by what a person sees alone: labels, menus, nodes by their titles. Writes a picture of every
step and a page of them into ``docs/walkthrough``, and ends with what is not as it should be.
"""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from api_client import Server, running_server
from frontend import open_search, opened_browser
from headless import PACK, available_device
from PIL import Image

FOLDER = PACK / "docs" / "walkthrough"
PAGE = """# Walked through

Five tasks in a ComfyUI and a browser that nobody has used yet, as `scripts/walk_through.py` does
them: by labels, menus and the titles of nodes alone.
"""
WINDOW = (1600, 900)
SMALLER, QUALITY = (1200, 675), 70
GRAPH = "01 Text and face, runs at once"
# A file of another kind among the face recognizers, as a download ends up in a wrong folder.
WRONG_FILE = "my_face_network.onnx"
PATIENCE = 120_000  # milliseconds for what a person waits for
SETTLED = 1500  # milliseconds until a menu, a dialog, a node is drawn

# Where a person sees a part of a node, in pixels of the window.
PLACE = """([title, part, label]) => {
    const node = app.graph.nodes.find(node => node.title === title);
    if (!node) return null;
    const {scale, offset} = app.canvas.ds, box = app.canvas.canvas.getBoundingClientRect();
    const named = slots => slots.findIndex(slot => (slot.label ?? slot.localized_name
        ?? slot.name) === label || slot.name === label);
    const widget = node.widgets?.find(widget => (widget.label ?? widget.name) === label
        || widget.name === label);
    const at = {
        title: () => [node.pos[0] + node.size[0] / 2, node.pos[1] - 15],
        input: () => node.getInputPos(named(node.inputs)),
        output: () => node.getOutputPos(named(node.outputs)),
        widget: () => [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.y + 10],
    }[part]();
    return [box.x + (at[0] + offset[0]) * scale, box.y + (at[1] + offset[1]) * scale];
}"""
# Where a new node fits below the graph, in pixels of the window; the nodes there are in the way.
FREE = """places => places.find(([x, y]) => {
    const {scale, offset} = app.canvas.ds, box = app.canvas.canvas.getBoundingClientRect();
    const [left, top] = [(x - box.x) / scale - offset[0], (y - box.y) / scale - offset[1]];
    return app.graph.nodes.every(node => node.pos[0] > left + 400 || node.pos[1] > top + 300
        || node.pos[0] + node.size[0] < left - 20 || node.pos[1] + node.size[1] < top - 60);
})"""
PLACES = [[320, 730], [640, 730], [960, 730]]
# Who finds no room zooms out, with the pointer above the graph, so that it shrinks upwards.
ABOVE, MOST_ZOOMS = (800, 100), 6
SHOWN = """title => {
    const node = app.graph.nodes.find(node => node.title === title);
    return (node.widgets ?? []).map(widget => String(widget.value ?? '')).join('\\n')
        + JSON.stringify(app.nodeOutputs?.[node.id] ?? {});
}"""


class Person:
    """Looks, clicks, drags and types; keeps what it saw."""

    def __init__(self, page: Any, server: Server, folder: Path):
        self.page, self.server, self.folder = page, server, folder
        self.seen: list[tuple[str, str]] = []
        self.camera = page.context.new_cdp_session(page)

    def see(self, name: str, text: str) -> None:
        """Keep what the window shows, and a sentence about it."""
        self.page.wait_for_timeout(SETTLED)
        taken = self.camera.send("Page.captureScreenshot", {"format": "png"})
        file = self.folder / f"{len(self.seen) + 1:02d}_{name}.jpg"
        png = file.with_suffix(".png")
        png.write_bytes(base64.b64decode(taken["data"]))
        with Image.open(png) as picture:
            picture.convert("RGB").resize(SMALLER, Image.Resampling.LANCZOS).save(
                file, quality=QUALITY
            )
        png.unlink()
        self.seen.append((file.name, text))
        print(f"{file.name}: {text}", flush=True)

    def place(self, title: str, part: str, label: str = "") -> tuple[float, float]:
        """Where a node's part is; raises LookupError if no such node is there."""
        found = self.page.evaluate(PLACE, [title, part, label])
        if found is None:
            raise LookupError(f"no node is called '{title}'")
        return tuple(found)

    def wire(self, source: str, output: str, target: str, name: str) -> None:
        """Drag a wire from an output of one node to an input of another."""
        start, end = self.place(source, "output", output), self.place(target, "input", name)
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=5)
        self.page.mouse.move(*end, steps=5)
        self.page.mouse.up()
        self.page.wait_for_timeout(SETTLED)

    def write(self, title: str, widget: str, value: str) -> None:
        """Type a number into a widget."""
        self.page.mouse.dblclick(*self.place(title, "widget", widget))
        box = self.page.locator(".graphdialog input, [role=dialog] input").first
        box.fill(value)
        box.press("Enter")

    def choose(self, title: str, widget: str, value: str) -> None:
        """Choose from a widget's menu."""
        self.page.mouse.click(*self.place(title, "widget", widget))
        entry = self.page.locator(".litemenu-entry").filter(has_text=value).first
        entry.click()
        self.page.wait_for_timeout(SETTLED)

    def add(self, word: str, name: str) -> None:
        """Add a node: double click where nothing is, a word, the result of that name."""
        x, y = self.room()
        box = open_search(self.page, x, y)
        box.fill(word)
        self.page.locator("#results-list [role=option]").filter(has_text=name).first.click()
        box.wait_for(state="hidden")
        self.page.mouse.click(x, y)
        self.page.wait_for_timeout(SETTLED)

    def room(self) -> list[float]:
        """Where a new node fits; raises LookupError if zooming out does not help."""
        for _ in range(MOST_ZOOMS):
            if place := self.page.evaluate(FREE, PLACES):
                return place
            self.page.mouse.move(*ABOVE)
            self.page.mouse.wheel(0, 100)
            self.page.wait_for_timeout(SETTLED)
        raise LookupError("there is no room for another node")

    def run(self) -> None:
        """Press Run and wait for the end, whatever it is."""
        before = set(self.server.get("/history"))
        self.page.get_by_role("button", name="Run", exact=True).first.click()
        while not set(self.server.get("/history")) - before:
            self.page.wait_for_timeout(500)
        self.page.wait_for_timeout(2 * SETTLED)

    def reads(self, title: str) -> str:
        """What a node shows: its widgets and what it said after a run."""
        return self.page.evaluate(SHOWN, title)


def run_the_demo(person: Person) -> None:
    """Task 1: run the demo."""
    page = person.page
    search = page.get_by_placeholder("Search ...")
    page.wait_for_timeout(4000)
    if not search.is_visible():  # ComfyUI opens it by itself only at the very first start
        page.get_by_role("button", name="Templates").first.click()
    page.get_by_text("All Templates").locator("visible=true").first.click()
    search.fill("text and face")
    page.get_by_text(GRAPH).locator("visible=true").first.wait_for()
    page.wait_for_timeout(SETTLED)
    person.see(
        "templates",
        "*Templates* has the graphs of this pack. Those of 'runs at once' need no file.",
    )
    page.get_by_text(GRAPH).locator("visible=true").first.click()
    page.wait_for_timeout(2 * SETTLED)
    person.see("graph", "The graph explains itself in four groups and a note; the prompt is stock.")
    person.run()
    person.see("first_picture", "*Run*: the picture, and in *Z-Magic Sampler* what happened.")
    assert "Face Identity" in person.reads("Z-Magic Sampler")


def change_the_face(person: Person) -> None:
    """Task 2: another face, and its report."""
    person.wire("Load Z-Magic Demo", "man", "Face Identity Energy", "reference")
    person.see("another_face", "A wire from *man* to *reference*: another person is asked for.")
    before = person.reads("Z-Magic Sampler")
    person.run()
    person.see("another_person", "*Z-Magic Sampler* says how far the face came.")
    assert person.reads("Z-Magic Sampler") != before


def add_a_style(person: Person) -> None:
    """Task 3: add a style, and lower its weight."""
    person.add("style", "Style Energy")
    person.wire("Face Identity Energy", "conditions", "Style Energy", "conditions")
    person.wire("Style Energy", "conditions", "Z-Magic Sampler", "conditions")
    person.wire("Z-Magic Demo Networks", "openclip", "Style Energy", "openclip")
    person.wire("Load Z-Magic Demo", "photograph", "Style Energy", "reference")
    person.see(
        "style",
        "*Style Energy*, by a double click and its name, before the sampler.",
    )
    person.run()
    person.see("styled", "The report has a line for the style.")
    assert "Style" in person.reads("Z-Magic Sampler")
    person.write("Style Energy", "weight", "0.3")
    person.run()
    person.see("less_style", "A lower *weight*, and the style counts less.")


def make_it_faster(person: Person) -> None:
    """Task 4: the same in less time."""
    person.choose("Z-Magic Settings", "preset", "fast")
    person.see("preset", "*Z-Magic Settings*: the preset *fast*.")
    person.run()
    person.see("faster", "The same conditions at a lower price; the report says which.")


def find_what_is_wrong(person: Person) -> None:
    """Task 5: find out why a wrong file fails."""
    person.add("face recognizer", "Load Face Recognizer")
    person.choose("Load Face Recognizer", "model_name", WRONG_FILE)
    person.wire("Load Face Recognizer", "recognizer", "Face Identity Energy", "recognizer")
    person.see("wrong_file", "A file of another kind is chosen as the face network.")
    person.run()
    person.see("what_is_wrong", "One sentence says what is wrong and what to do.")


TASKS: dict[str, Callable[[Person], None]] = {
    "Run the demo": run_the_demo,
    "Change the face and see it reported": change_the_face,
    "Add a style and lower its weight": add_a_style,
    "Make it faster": make_it_faster,
    "Find out why a wrong file fails": find_what_is_wrong,
}


def main() -> None:
    """Walk through all tasks and write the page."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.jpg"):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="zmagic-walk-") as home:
        folder = Path(home)
        for name in ("user", "input", "insightface"):
            (folder / name).mkdir()
        shutil.copy(
            PACK / "demo_models" / "zmagic_demo_parser.onnx", folder / "insightface" / WRONG_FILE
        )
        options = {
            "cpu": available_device() == "cpu",
            "models": {"insightface": folder / "insightface"},
            "arguments": [f"--{name}-directory={folder / name}" for name in ("user", "input")],
        }
        with (
            running_server(folder, folder / "server.log", **options) as server,
            opened_browser(server, WINDOW) as page,
        ):
            page.set_default_timeout(PATIENCE)
            person = Person(page, server, FOLDER)
            text = PAGE
            for title, task in TASKS.items():
                first = len(person.seen)
                task(person)
                steps = (f"{about}\n\n![{title}]({file})" for file, about in person.seen[first:])
                text += "\n\n".join((f"\n## {title}", *steps)) + "\n"
    (FOLDER / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
