"""Make the blueprints of ``subgraphs/``: ``python scripts/make_blueprints.py``.

A blueprint is one node that holds a graph. ``subgraphs/api/NAME.json`` has the nodes inside, as a
prompt in which the blueprint's own sockets stay open; ``subgraphs/blueprints.toml`` says which
sockets and widgets those are. The host's own frontend makes the nodes, and the one around them.

Needs a Chromium (CHROMIUM names its executable).
"""

from __future__ import annotations

import json
import tomllib
import uuid
from pathlib import Path

from api_client import running_server
from frontend import opened_frontend
from graph_files import describe, registered
from graph_groups import columns_of
from graph_layout import WIDTHS
from headless import PACK
from make_workflows import graph_of
from playwright.sync_api import Page

__all__ = ["blueprint", "definition"]

FOLDER = PACK / "subgraphs"
WIDTH = 340  # pixels of the node that holds the graph
LEFT, RIGHT, TOP = 200, 80, 60  # pixels between the sockets of the graph inside and its nodes
BESIDE, APART = 60, 60  # pixels between nodes
ENTRY, EXIT = -10, -20  # what the frontend calls the two sides of a graph inside a node

# What a link of a graph file is, in its order, by the names that a graph inside a node has for it.
LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")

HOLD = """async content => {
    await app.loadGraphData(content);
    const [node] = app.graph.nodes;
    const [width, height] = node.computeSize();
    node.setSize([Math.max(content.nodes[0].size[0], width), height]);
    return app.graph.serialize();
}"""


def main() -> None:
    """Write all blueprint files."""
    content = (FOLDER / "blueprints.toml").read_text(encoding="utf-8")
    work = PACK / ".host" / "make_blueprints"
    with (
        running_server(work, work / "server.log", cpu=True) as server,
        opened_frontend(server, "canvas") as page,
    ):
        for name, about in tomllib.loads(content).items():
            write(page, FOLDER / "api" / f"{name}.json", about)


def write(page: Page, file: Path, about: dict) -> None:
    """Write the blueprint that ``about`` describes, of the nodes in a file."""
    api = json.loads(file.read_text(encoding="utf-8"))
    graph = graph_of(page, api, file.stem)
    columns = columns_of(graph)
    for node in graph["nodes"]:
        node["title"] = api[str(node["id"])]["_meta"]["title"]
    describe(graph["nodes"], api)
    inside = definition(graph, columns, about)
    held = page.evaluate(HOLD, blueprint(inside, about))
    held["extra"] = {
        "BlueprintDescription": about["description"],
        "BlueprintSearchAliases": about["aliases"],
    }
    target = FOLDER / f"{about['name']}.json"
    target.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    print(f"{about['name']}: {len(inside['nodes'])} nodes inside")


def blueprint(inside: dict, about: dict) -> dict:
    """A graph file's content: one node, which holds the graph ``inside``."""
    node = {
        "id": 1,
        "type": inside["id"],
        "pos": [0, 0],
        "size": [WIDTH, 100],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": about["name"],
        "properties": {**registered()},
        "widgets_values": [],
    }
    return {
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [node],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [inside]},
    }


def definition(graph: dict, columns: dict[int, int], about: dict) -> dict:
    """The graph inside: its nodes in columns, wired to the sockets that ``about`` names."""
    titles = {node["title"]: node for node in graph["nodes"]}
    links = [dict(zip(LINK, link, strict=True)) for link in graph["links"]]
    right = _place(graph, columns)
    entries = [_entry(i, socket, titles, links) for i, socket in enumerate(about["inputs"])]
    exits = [_exit(i, socket, titles, links) for i, socket in enumerate(about["outputs"])]
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"z-magic/{about['name']}")),
        "version": 1,
        "state": {
            "lastGroupId": 0,
            "lastNodeId": max(node["id"] for node in graph["nodes"]),
            "lastLinkId": max(link["id"] for link in links),
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": about["name"],
        "inputNode": {"id": ENTRY, "bounding": [-LEFT - 120, TOP, 120, 40 + 20 * len(entries)]},
        "outputNode": {"id": EXIT, "bounding": [right + RIGHT, TOP, 120, 40 + 20 * len(exits)]},
        "inputs": entries,
        "outputs": exits,
        "widgets": [],
        "nodes": graph["nodes"],
        "groups": [],
        "links": links,
        "extra": {},
        "category": "Z-Magic",
        "description": about["description"],
    }


def _place(graph: dict, columns: dict[int, int]) -> int:
    """Put the nodes into columns; the right end of all."""
    left = 0
    for column in sorted(set(columns.values())):
        top = 0
        for node in graph["nodes"]:
            if columns[node["id"]] == column:
                node["pos"] = [left, top]
                top += round(node["size"][1]) + APART
        left += WIDTHS[column] + BESIDE
    return left


def _entry(number: int, socket: dict, titles: dict[str, dict], links: list[dict]) -> dict:
    """A socket or widget on the left side, with its wires to the nodes inside."""
    made = []
    for title, name in socket["of"]:
        node = titles[title]
        slot = next(i for i, entry in enumerate(node["inputs"]) if entry["name"] == name)
        link = _link(links, (ENTRY, number), (node["id"], slot), node["inputs"][slot]["type"])
        node["inputs"][slot]["link"] = link["id"]
        made.append(link)
    return _socket(socket["name"], made)


def _exit(number: int, socket: dict, titles: dict[str, dict], links: list[dict]) -> dict:
    """A socket on the right side, with its wire from a node inside."""
    title, slot = socket["of"]
    output = titles[title]["outputs"][slot]
    link = _link(links, (titles[title]["id"], slot), (EXIT, number), output["type"])
    output["links"] = [*(output["links"] or ()), link["id"]]
    return _socket(socket["name"], [link])


def _link(links: list[dict], origin: tuple[int, int], target: tuple[int, int], kind: str) -> dict:
    link = {
        "id": 1 + max((link["id"] for link in links), default=0),
        "origin_id": origin[0],
        "origin_slot": origin[1],
        "target_id": target[0],
        "target_slot": target[1],
        "type": kind,
    }
    links.append(link)
    return link


def _socket(name: str, links: list[dict]) -> dict:
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"z-magic/{name}/{links[0]['id']}")),
        "name": name,
        "type": links[0]["type"],
        "linkIds": [link["id"] for link in links],
    }


if __name__ == "__main__":
    main()
