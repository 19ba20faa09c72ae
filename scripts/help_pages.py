"""The tables of the help pages: ``python scripts/help_pages.py`` writes them from the nodes.

A page in ``web/docs`` has a table of the node's inputs and outputs between two marks. Names and
sentences are those of the node, where ComfyUI shows them as tooltips: whoever changes a tooltip
runs this. A test says when a page has another table.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import headless
from marked_text import replaced_between
from node_texts import Text, inputs, node_schemas, outputs

__all__ = ["BEGIN", "END", "FOLDER", "HEADINGS", "PICTURES", "table", "with_table"]

FOLDER = headless.PACK / "web" / "docs"
PICTURES = FOLDER / "pictures"  # by scripts/page_pictures.py
BEGIN = "<!-- inputs and outputs, written by scripts/help_pages.py -->"
END = "<!-- end of inputs and outputs -->"
HEADINGS = ("input", "output", "meaning")

Translate = Callable[[str], str]


def table(schema: Any, translated: Translate = str, named: Translate = str) -> str:
    """A node's picture, if it has one, its inputs and its outputs as a page has them, in Markdown.

    ComfyUI looks for pictures from the folder of the English pages on, whatever the language.

    Args:
        schema: of the node.
        translated: gives an English sentence in the language of the page.
        named: gives the name of an input or output as the page has it.
    """
    parts = ("input", inputs(schema)), ("output", outputs(schema))
    tables = [_table(heading, texts, translated, named) for heading, texts in parts if texts]
    file = PICTURES / f"{schema.node_id}.jpg"
    name = translated(schema.display_name)
    pictures = [f"![{name}]({PICTURES.name}/{file.name})"] if file.is_file() else []
    return "\n\n".join([*pictures, *tables])


def with_table(page: str, content: str) -> str:
    """The page with ``content`` between its marks.

    Raises ValueError where it has not exactly one pair of them.
    """
    return replaced_between(page, BEGIN, END, f"\n\n{content}\n\n")


def _table(heading: str, texts: list[Text], translated: Translate, named: Translate) -> str:
    rows = [
        f"| {translated(heading)} | {translated('meaning')} |",
        "|---|---|",
        *(f"| {_name(text, named)} | {_meaning(text, translated)} |" for text in texts),
    ]
    return "\n".join(rows)


def _name(text: Text, named: Translate) -> str:
    if text.slots:
        return ", ".join([*text.slots[:2], "..."])
    return named(text.name)


def _meaning(text: Text, translated: Translate) -> str:
    """The sentences; in front of them the choices under which the node has the input."""
    of = f"*{', '.join(text.choices)}*: " if text.choices else ""
    return of + _literal(" ".join(map(translated, text.sentences)))


def _literal(text: str) -> str:
    """Text in a cell of a table as Markdown, so that it reads as it is."""
    return re.sub(r"([|*<\\])", r"\\\1", text)


def main() -> int:
    """Write the table of every page of ``web/docs`` anew."""
    headless.load_host_on("cpu")
    headless.load_pack()
    for name, schema in node_schemas().items():
        page = FOLDER / f"{name}.md"
        text = with_table(page.read_text(encoding="utf-8"), table(schema))
        page.write_text(text, encoding="utf-8", newline="\n")
    print(f"{FOLDER}: the tables are those of the nodes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
