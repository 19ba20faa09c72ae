"""The pack's words: one spelling, the field's terms, and ComfyUI by its name where users read."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
CODE = ("guidance", "host", "nodes")
# Without tests/lab, whose captions say "grey" to a CLIP that was trained on it.
ROOMS = ("browser", "energies", "host", "onnx", "package", "pure")
SPELLED = (*CODE, "scripts", "extras", *(f"tests/{room}" for room in ROOMS))

# Ours is the US spelling, which ComfyUI, PyTorch and their users have. "disc" is not among these:
# it is a shape, too.
BRITISH = re.compile(
    r"colour|centre(?!l)|centring|recognis|normalis|(?<![a-z])grey|licence|favour|behaviour|"
    r"neighbour|quantis|initialis|labell(?:ed|ing)|travell|modelling|(?:min|max|opt)imis|"
    r"summaris|generalis|organis|artefact|analys(?:e[ds]?\b|ing)|catalogue|millimetre|centimetre",
    re.IGNORECASE,
)
# A network that guides is an attribute network, one that only measures an evaluator; the demo's
# pictures are synthetic portraits.
NOT_OURS = re.compile(
    r"\bjudg(?:e|es|ed|ing)\b|\brendered (?:people|portraits?|wom[ae]n|m[ae]n)\b", re.IGNORECASE
)
HOST = re.compile(r"\b(?:the|a) host\b|\bhost's\b", re.IGNORECASE)
# What belongs to measures and formulas, not to the first sentences of a help page.
FORMULAS = re.compile(r"\b(?:cosines?|embeddings?|Gram|gradients?|squared|energy is)\b")

PAGES = sorted((PACK / "web" / "docs").glob("*.md"))
DOCS = sorted((PACK / "docs").glob("*.md"))
PROSE = [*PAGES, *DOCS, PACK / "README.md", PACK / "CONTRIBUTING.md", PACK / "CHANGELOG.md"]


def files(*folders: str) -> list[Path]:
    """The Python files below the pack's folders, without this one, whose words are the others'."""
    found = (path for folder in folders for path in sorted((PACK / folder).rglob("*.py")))
    return [path for path in found if path != Path(__file__).resolve()]


def name(path: Path) -> str:
    return path.relative_to(PACK).as_posix()


def british_in(path: Path) -> list[str]:
    """The words of a file, and of its name, that are not in the US spelling."""
    text = path.read_text(encoding="utf-8")
    if path.stem.startswith("ZMagicLoadDemo"):  # whose models were trained on the word "grey"
        text = re.sub(r"\bgrey\b", "", text)
    return [*BRITISH.findall(text), *BRITISH.findall(path.name)]


def read_by_users(path: Path) -> Iterator[str]:
    """The texts in a Python file that are no docstrings: tooltips, messages, reports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    texts = (node for node in constants if isinstance(node.value, str))
    return (node.value for node in texts if id(node) not in docstrings)


def test_the_lists_find_what_they_are_for():
    assert all(map(BRITISH.search, ("hat_colour", "Centred", "a_grey_map", "quantised", "licence")))
    assert not any(map(BRITISH.search, ("center", "centrally", "analyst", "license", "traveled")))
    assert NOT_OURS.search("the networks that judge") and NOT_OURS.search("two rendered people")
    assert HOST.search("as the host chose") and not HOST.search("host.networks has hosts")


def test_there_is_one_spelling():
    assert {
        name(path): found for path in (*files(*SPELLED), *PROSE) if (found := british_in(path))
    } == {}


def test_networks_guide_or_evaluate_and_portraits_are_synthetic():
    paths = (*files(*CODE), *PROSE)
    assert {
        name(path): found
        for path in paths
        if (found := NOT_OURS.findall(path.read_text(encoding="utf-8")))
    } == {}


def test_users_read_of_comfyui_by_its_name():
    messages = {path: list(read_by_users(path)) for path in files(*CODE, "scripts")}
    pages = {path: [path.read_text(encoding="utf-8")] for path in (*PAGES, PACK / "README.md")}
    found = {
        name(path): [text for text in texts if HOST.search(text)]
        for path, texts in {**messages, **pages}.items()
    }
    assert {path: texts for path, texts in found.items() if texts} == {}


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_a_help_page_says_what_one_gets_then_how_to_connect_it_then_the_details(path):
    title, first, *rest = path.read_text(encoding="ascii").split("\n\n")
    assert title.startswith("# ") and not FORMULAS.search(first), first
    before_table = "\n\n".join([first, *rest]).partition("\n|")[0]
    assert re.search(r"\bconnect", before_table, re.IGNORECASE), before_table


def test_the_readme_shows_what_it_is_and_how_to_have_it_before_it_explains():
    text = (PACK / "README.md").read_text(encoding="utf-8")
    order = ["![", "## Install\n", "## The first picture\n", "## Which preset\n", "## Nodes\n"]
    places = [text.index(each) for each in order]
    assert places == sorted(places) and places[-1] < text.index("## What it does\n")


def test_the_changelog_says_nothing_twice():
    lines = (PACK / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    told = [line for line in lines if line.startswith("- ")]
    assert len(told) == len(set(told))
