"""Take the pictures of the graphs that need no file: ``python scripts/make_pictures.py``.

Each is run as it ships, and the first picture that it saves becomes its picture in Templates;
those that need files have drawings, which ``make_workflows.py`` makes. Without names, the README's
picture of a graph with its result is taken, too; for that a Chromium is needed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from api_client import Server, running_server
from frontend import opened_frontend, write_pictures
from graph_drawings import photograph
from graph_files import files_of
from graph_lists import prompt_of
from graph_notes import read_texts
from headless import PACK, available_device
from packages import STATE
from PIL import Image

WORKFLOWS = PACK / "workflows"
SHOWN, SHOWN_IN = "text_and_identity_demo", PACK / "docs" / "graph.jpg"  # in the README

# Pictures of the demo model are small; a sheet of many is not.
ENLARGED, WIDEST = 4, 1024


def main() -> None:
    """Write the pictures."""
    texts = read_texts()
    free = [name for name in texts if not files_of(prompt_of(name))]
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"Of: {', '.join(free)}.")
    named = parser.parse_args().names
    if unknown := set(named) - set(free):
        parser.error(f"needs files, or is none of workflows/api: {', '.join(sorted(unknown))}")
    work = PACK / ".host" / "make_pictures"
    write_pictures(STATE / "server" / "input")
    with running_server(work, work / "server.log", cpu=available_device() == "cpu") as server:
        for name in named or free:
            target = WORKFLOWS / f"{texts[name].name}.jpg"
            write_result(server, work, prompt_of(name), target)
            print(target.relative_to(PACK), flush=True)
        if named:
            return
        with opened_frontend(server, "nodes 2.0") as page:
            page.set_viewport_size({"width": 1600, "height": 900})
            file = WORKFLOWS / f"{texts[SHOWN].name}.json"
            graph = json.loads(file.read_text(encoding="utf-8"))
            photograph(page, server, graph, SHOWN_IN, quality=75)
        print(SHOWN_IN.relative_to(PACK))


def write_result(server: Server, folder: Path, prompt: dict, target: Path) -> None:
    """Run a prompt; write the first picture that it saves, as large as it is shown."""
    outputs = server.run(prompt)
    saving = next(i for i, node in prompt.items() if node["class_type"] == "SaveImage")
    (image, *_) = outputs[saving]["images"]
    with Image.open(folder / image["subfolder"] / image["filename"]) as picture:
        factor = min(ENLARGED, WIDEST / picture.width)
        size = (round(picture.width * factor), round(picture.height * factor))
        large = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    large.save(target, quality=90)


if __name__ == "__main__":
    main()
