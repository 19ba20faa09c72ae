"""The nodes and help pages in other languages: ``python scripts/translations.py zh``.

``locales/LANGUAGE/phrases.json`` is what translators write: each English text of the nodes once,
with its translation. From it this script makes the files that ComfyUI reads (``nodeDefs.json``,
``main.json``) and the tables of the translated help pages (``web/docs/NODE/LANGUAGE.md``). A
phrase that is new gets the translation "", and ComfyUI shows the English text until there is one;
one that no node says any more is told and dropped. Phrases are found by their English text, so that
no translation outlives what it was made from.

The sentences of a help page are translated as a whole. ``--pages NODE ...`` says that the pages of
these nodes are translations of the English ones as they are now; a test tells when those change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import headless
import help_pages
from node_texts import Text, inputs, node_schemas, outputs

__all__ = [
    "LOCALES",
    "Language",
    "faults_of",
    "files",
    "left_to_do",
    "page_digest",
    "phrases_of",
    "update",
]

LOCALES = headless.PACK / "locales"
PACK_CATEGORY = "Z-Magic"
# A translation of ComfyUI's own, which other packs share.
HOST_CATEGORIES = {"sampling"}
# Characters by which the frontend finds variables, links and plurals in names and descriptions, and
# ~, between two of which its Markdown strikes text through. Help pages may have all but a single ~.
SPECIAL = re.compile(r"[{}@|~]")
STRIKES = re.compile(r"(?<!~)~(?!~)")
NUMBER = re.compile(r"\d+(?:\.\d+)?")

Translate = Callable[[str], str]


class Language:
    """A language of ``locales``: its phrases, and which help pages it has.

    Args:
        code: as ComfyUI's settings name it, such as ``zh``.
    """

    def __init__(self, code: str):
        self.code = code
        self.folder = LOCALES / code
        self.phrases: dict[str, str] = _read(self.folder / "phrases.json")
        # The digest of the English page that each page was made from.
        self.sources: dict[str, str] = _read(self.folder / "pages.json")

    def translated(self, text: str) -> str:
        """``text`` in this language, or as it is where there is no translation."""
        return self.phrases.get(text) or text

    def named(self, text: str) -> str:
        """A name beside its English one, which messages and graphs have, where it is another."""
        there = self.translated(text)
        return there if there == text else f"{there} ({text})"

    def page(self, node: str) -> Path:
        """Where ComfyUI looks for a node's help page in this language."""
        return help_pages.FOLDER / node / f"{self.code}.md"

    def pages(self) -> list[str]:
        """The nodes that have a help page in this language."""
        return sorted(page.parent.name for page in help_pages.FOLDER.glob(f"*/{self.code}.md"))


def phrases_of(schemas: dict[str, Any]) -> list[str]:
    """Every English text of the nodes and of their tables once, in the order of the nodes."""
    found: list[str] = [*help_pages.HEADINGS, *_categories(schemas)]
    for schema in schemas.values():
        found += [schema.display_name, schema.description]
        for text in (*inputs(schema), *outputs(schema)):
            found += [text.slot or text.name, *text.sentences]
    # An output that is called as its type is one that the frontend translates itself: MODEL.
    return list(dict.fromkeys(text for text in found if not text.isupper()))


def files(language: Language, schemas: dict[str, Any]) -> dict[Path, str]:
    """The files that are made from a language's phrases, with their content."""
    categories = {each: language.phrases.get(each) for each in _categories(schemas)}
    main = {"nodeCategories": {each: there for each, there in categories.items() if there}}
    nodes = {name: _node(schema, language) for name, schema in schemas.items()}
    found = {
        language.folder / "main.json": _json(main),
        language.folder / "nodeDefs.json": _json(
            {name: node for name, node in nodes.items() if node}
        ),
    }
    for node in language.pages():
        table = help_pages.table(schemas[node], language.translated, language.named)
        page = language.page(node)
        found[page] = help_pages.with_table(page.read_text(encoding="utf-8"), table)
    return found


def faults_of(english: str, there: str) -> list[str]:
    """What is wrong with a translation, as far as it shows without knowing the language."""
    faults = []
    if SPECIAL.search(there):
        faults.append(f"write it without the characters {{ }} @ | ~: {there}")
    if sorted(NUMBER.findall(english)) != sorted(NUMBER.findall(there)):
        faults.append(f"expected the numbers of '{english}', got '{there}'")
    if there != there.strip():
        faults.append(f"it begins or ends with a space: {there}")
    return faults


def page_digest(node: str) -> str:
    """The short name of what the English help page of a node says beside its table."""
    page = (help_pages.FOLDER / f"{node}.md").read_text(encoding="utf-8")
    return hashlib.sha256(help_pages.with_table(page, "").encode()).hexdigest()[:12]


def _categories(schemas: dict[str, Any]) -> list[str]:
    parts = (part for schema in schemas.values() for part in schema.category.split("/"))
    return sorted(set(parts) - {PACK_CATEGORY} - HOST_CATEGORIES)


def _node(schema: Any, language: Language) -> dict[str, Any]:
    """What ComfyUI's frontend looks for of a node, without what is not translated."""
    sockets = {"inputs": inputs(schema), "outputs": outputs(schema)}
    found: dict[str, Any] = {
        "display_name": language.phrases.get(schema.display_name),
        "description": language.phrases.get(schema.description),
    }
    for kind, texts in sockets.items():
        entries: dict[str, Any] = {}
        for text in texts:
            for key, entry in _entries(text, language).items():
                entries.setdefault(key, entry)  # an input of several choices has one entry
        found[kind] = {key: entry for key, entry in entries.items() if entry}
    return {key: value for key, value in found.items() if value}


def _entries(text: Text, language: Language) -> dict[str, dict[str, str]]:
    """The entries of an input or output; of a growing one, those of each slot."""
    name = language.phrases.get(text.name)
    tooltip = language.phrases.get(text.sentences[-1])
    if not text.slots:
        return {_key(text.key): _entry(name, tooltip)}
    slot_name = language.phrases.get(text.slot)
    return {
        _key(f"{text.key}.{slot}"): _entry(
            slot_name and slot.replace(text.slot, slot_name, 1), tooltip
        )
        for slot in text.slots
    }


def _entry(name: str | None, tooltip: str | None) -> dict[str, str]:
    return {key: text for key, text in (("name", name), ("tooltip", tooltip)) if text}


def _key(name: str) -> str:
    return name.replace(".", "_")


def _read(file: Path) -> dict[str, str]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _json(content: dict) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8", newline="\n")


def update(language: Language, schemas: dict[str, Any], pages: list[str]) -> list[str]:
    """Bring the files of a language up to the nodes.

    Returns what is left to do, in sentences.
    """
    known = language.phrases
    language.phrases = {text: known.get(text, "") for text in phrases_of(schemas)}
    _write(language.folder / "phrases.json", _json(language.phrases))
    sources = language.sources | {node: page_digest(node) for node in pages}
    language.sources = {node: sources[node] for node in language.pages() if node in sources}
    _write(language.folder / "pages.json", _json(language.sources))
    for file, text in files(language, schemas).items():
        _write(file, text)
    gone = [f"gone: '{text}' = '{known[text]}'" for text in known if text not in language.phrases]
    return [*gone, *left_to_do(language)]


def left_to_do(language: Language) -> list[str]:
    """What a translator has to do, in sentences."""
    phrases = language.phrases.items()
    missing = [f"translate: {english}" for english, there in phrases if not there]
    faults = [fault for english, there in phrases if there for fault in faults_of(english, there)]
    outdated = [
        f"{language.page(node).relative_to(headless.PACK)}: the English page is another one now; "
        f"then run 'python scripts/translations.py {language.code} --pages {node}'"
        for node in language.pages()
        if language.sources.get(node) != page_digest(node)
    ]
    struck = [
        f"{language.page(node).relative_to(headless.PACK)}: write it without ~, between two of "
        "which text is struck through"
        for node in language.pages()
        if STRIKES.search(language.page(node).read_text(encoding="utf-8"))
    ]
    return [*missing, *faults, *struck, *outdated]


def main() -> int:
    """Update a language, and say what is left to do."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("language", help="as ComfyUI's settings name it: zh, ja, ko, ...")
    parser.add_argument(
        "--pages", nargs="+", default=[], metavar="NODE", help="whose help pages are up to date"
    )
    arguments = parser.parse_args()
    headless.load_host_on("cpu")
    headless.load_pack()
    language = Language(arguments.language)
    left = update(language, node_schemas(), arguments.pages)
    print("\n".join(left))
    print(f"{language.folder}: {len(left)} left to do")
    return 0


if __name__ == "__main__":
    sys.exit(main())
