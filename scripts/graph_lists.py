"""Lists of the graphs that are kept elsewhere: the README's table, and comfy-test's."""

from __future__ import annotations

import json

from graph_files import files_of
from graph_notes import Texts, read_texts
from headless import PACK
from marked_text import replaced_between

__all__ = ["listed", "prompt_of", "write_lists"]

MODELS = ("checkpoints", "diffusion_models")  # folders of what is large
README, COMFY_TEST = PACK / "README.md", PACK / "comfy-test.toml"
PLACES = {  # what stands before and after the list in each file
    README: ("<!-- graphs.toml -->\n", "<!-- /graphs.toml -->"),
    COMFY_TEST: ("\ncpu = [\n", "]\n"),
}


def write_lists() -> None:
    """Write the lists of all graphs anew, each into its file."""
    for file, text in listed().items():
        file.write_text(text, encoding="utf-8", newline="\n")


def listed() -> dict:
    """The files that hold lists, and their texts with the lists as they should be."""
    texts = dict(sorted(read_texts().items(), key=lambda entry: entry[1].name))
    lists = {README: _table(texts), COMFY_TEST: _free(texts)}
    return {
        file: replaced_between(file.read_text(encoding="utf-8"), *marks, lists[file])
        for file, marks in PLACES.items()
    }


def prompt_of(name: str) -> dict:
    """The prompt that a graph is made from."""
    return json.loads((PACK / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def _table(texts: dict[str, Texts]) -> str:
    lines = ["| graph | needs | prompt in `workflows/api/` |", "|---|---|---|"]
    for name, about in texts.items():
        lines.append(f"| {about.name} | {_needs(name)} | `{name}` |")
    return "\n".join(lines) + "\n"


def _needs(name: str) -> str:
    files = files_of(prompt_of(name))
    if not files:
        return "nothing"
    large = [f"`{file.name}`" for file in files if file.folder in MODELS]
    others = len(files) - len(large)
    more = [f"{others} smaller file{'s' if others > 1 else ''}"] if others else []
    return ", ".join([*large, *more])


def _free(texts: dict[str, Texts]) -> str:
    free = [about.name for name, about in texts.items() if not files_of(prompt_of(name))]
    return "".join(f'    "{name}.json",\n' for name in free)
