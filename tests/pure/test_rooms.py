"""Which file may know which: no circles in guidance/ and host/, and arrows that point one way."""

import ast
from pathlib import Path

import networkx as nx
import pytest

PACK = Path(__file__).parents[2]

# What each room may not know. Without "zmagic." it is ComfyUI's own, as its module `nodes` is.
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "nodes", "server"}
# What is not in the published archive, or not for the running pack.
NOT_AT_RUN_TIME = {f"{pack}{room}" for pack in ("zmagic.", "") for room in ("lab", "scripts")}
CLOSED = {
    "guidance": {"zmagic.host", "zmagic.nodes", "zmagic.extras", *NOT_AT_RUN_TIME, *COMFYUI},
    "host": {"zmagic.nodes", "zmagic.extras", *NOT_AT_RUN_TIME, "comfy_api"},
    "nodes": {"zmagic.extras", *NOT_AT_RUN_TIME},
}


def module_name(path: Path) -> str:
    parts = ("zmagic", *path.relative_to(PACK).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(p): p for room in CLOSED for p in sorted((PACK / room).rglob("*.py"))}


def in_room(room: str) -> list[str]:
    return [name for name in MODULES if name.split(".")[1] == room]


def imported(name: str) -> set[str]:
    """The full names of what a module imports, in functions and for type checkers, too."""
    path, found = MODULES[name], set()
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{source}.{alias.name}" for alias in node.names}
    return found


def beginnings(name: str) -> list[str]:
    """``a.b.c`` to ``a``, ``a.b`` and ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def loaded(name: str) -> set[str]:
    """The files of the pack that are run for a module's imports: modules and their packages."""
    run = {each for other in imported(name) for each in beginnings(other)}
    return run & MODULES.keys() - set(beginnings(name))


@pytest.mark.parametrize("room", CLOSED)
def test_no_file_needs_another_one_that_needs_it(room):
    arrows = [(name, other) for name in in_room(room) for other in loaded(name)]
    assert len(arrows) > 20
    parts = nx.strongly_connected_components(nx.DiGraph(arrows))
    assert not [sorted(part) for part in parts if len(part) > 1]


@pytest.mark.parametrize("room", CLOSED)
def test_arrows_between_rooms_point_one_way(room):
    known = {name: {b for i in imported(name) for b in beginnings(i)} for name in in_room(room)}
    assert not {name: names & CLOSED[room] for name, names in known.items() if names & CLOSED[room]}
