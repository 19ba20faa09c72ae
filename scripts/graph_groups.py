"""Which group of a graph a node belongs to, and which column: by what it takes and gives alone."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["GROUPS", "columns_of", "group_of"]

# Titles of the groups from left to right, and their colors.
GROUPS = {
    "1 Model": "#6d93a8",
    "2 What you want": "#6fa76f",
    "3 How strongly": "#b3a254",
    "4 Result": "#a874a3",
}
MODEL, WANTED, STRENGTH, RESULT = GROUPS

CONDITIONS = "ZMAGIC_CONDITIONS"
SETTINGS = ("ZMAGIC_SETTINGS", "ZMAGIC_METHOD")
GUIDED = ("MODEL", "GUIDER")
PARTS_OF_SAMPLING = ("NOISE", "SAMPLER", "SIGMAS", "INT")
PICTURES = ("IMAGE", "MASK")

# Columns from left to right; each holds nodes of one group.
LOADERS, REFERENCES, ENERGIES, SETTING, SAMPLING, OUTCOME = range(6)
GROUP_OF_COLUMN = (MODEL, WANTED, WANTED, STRENGTH, RESULT, RESULT)


def group_of(column: int) -> str:
    """The title of the group that a column of ``columns_of`` is in."""
    return GROUP_OF_COLUMN[column]


def columns_of(graph: dict) -> dict[int, int]:
    """The column of each node of a graph file's content; wires run to the right or stay in one."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    sources: dict[int, set[int]] = {name: set() for name in nodes}
    for _, origin, _, target, *_ in graph["links"]:
        sources[target].add(origin)
    sampled = {name for name, node in nodes.items() if _samples(node)}
    return {name: _column(nodes[name], sources, sampled) for name in nodes}


def _column(node: dict, sources: dict[int, set[int]], sampled: set[int]) -> int:
    takes, gives = _types(node, "inputs", linked=True), _types(node, "outputs")
    if node["id"] in sampled:
        return SAMPLING
    if _behind(node["id"], sources) & sampled:
        return OUTCOME
    if CONDITIONS in gives:
        return ENERGIES
    if gives & {*SETTINGS} or (CONDITIONS in takes and gives & {*GUIDED}):
        return SETTING
    if gives and gives <= {*PARTS_OF_SAMPLING}:
        return SAMPLING
    if "MODEL" in takes and gives == {"MODEL"}:
        return LOADERS
    if takes or gives <= {*PICTURES, "ZMAGIC_FACE_LOCATION"}:
        return REFERENCES
    return LOADERS


def _samples(node: dict) -> bool:
    gives = _types(node, "outputs")
    return "LATENT" in gives and bool(_types(node, "inputs") & {*GUIDED})


def _types(node: dict, side: str, linked: bool = False) -> set[str]:
    slots: Iterable[dict] = node.get(side) or ()
    return {slot["type"] for slot in slots if not linked or slot.get("link") is not None}


def _behind(name: int, sources: dict[int, set[int]]) -> set[int]:
    """All nodes that a node depends on."""
    found: set[int] = set()
    waiting = [*sources[name]]
    while waiting:
        if (source := waiting.pop()) not in found:
            found.add(source)
            waiting += sources[source]
    return found
