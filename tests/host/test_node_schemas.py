"""Saved graphs and posted workflows keep working: nodes change when somebody decided it."""

import json
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
FILE = Path(__file__).parent / "node_schemas.json"
HOW = "run 'python scripts/node_schemas.py' and tell the change in CHANGELOG.md"


@pytest.fixture(scope="module")
def described(pytestconfig):
    """The module ``scripts/node_schemas.py``."""
    return pytestconfig.zmagic_script("node_schemas")


def test_nodes_are_those_that_graphs_were_made_with(described):
    frozen = json.loads(FILE.read_text(encoding="utf-8"))
    now = described.schemas()
    changed = [name for name in frozen | now if frozen.get(name) != now.get(name)]
    assert not changed, HOW
    assert now == frozen


def test_the_changelog_tells_the_last_change(described):
    name = described.digest(FILE.read_text(encoding="utf-8"))
    assert f"nodes {name}" in (PACK / "CHANGELOG.md").read_text(encoding="utf-8"), HOW
