"""Ways of wires around nodes: points between the columns of a graph that wires pass through.

A wire to the next column needs none. A longer one runs above the columns between, in a lane that
no other wire has there; one inside a column runs round the node that it comes from.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

__all__ = ["BESIDE", "Column", "lanes_above", "points_of_links", "write_points"]

LANE = 15  # pixels between wires that run side by side
BESIDE = 48  # pixels between columns, for wires that run up and down
NEAR, BEND = 6, 14  # pixels from a column to where a wire turns round a node; where it goes upright
STEEP = 200  # pixels that a wire may rise or fall without a point beside its node, lest it bulge
SLOTS = 44  # pixels from the upper side of a node to its first slot
ABOVE = 26  # pixels from the middle of the way between two nodes to the upper side of the lower

Point = tuple[int, int]
Net = tuple[int, int]  # an output: id of the node, number of the slot


@dataclass(frozen=True)
class Column:
    """Nodes below each other: left and right side of all, and the upper side of each."""

    left: int
    right: int
    tops: dict[int, int]


def lanes_above(links: list[list], columns: list[Column]) -> dict[Net, int]:
    """The lane of each output that has a wire over other columns; 0 is the highest."""
    spans = _spans(links, columns)
    lanes: dict[Net, int] = {}
    # From the highest output, so that a wire crosses no lane on its way up.
    for net in sorted(spans, key=lambda net: (spans[net][0], *_height(net, columns))):
        taken = {
            lane
            for other, lane in lanes.items()
            if spans[other][0] <= spans[net][1] and spans[net][0] <= spans[other][1]
        }
        lanes[net] = next(lane for lane in range(len(spans)) if lane not in taken)
    return lanes


def points_of_links(
    links: list[list],
    columns: list[Column],
    lanes: dict[Net, int],
    top: int,
    folded: set[int],
) -> dict[int, list[Point]]:
    """The points of each link that needs some, from its output to its input.

    Args:
        links: as in a graph file.
        columns: of all nodes of the links.
        lanes: see ``lanes_above``.
        top: the height of lane 0.
        folded: nodes that are no more than a title, and narrower than their column.
    """
    places = _places(columns)
    beside = _offsets(lanes, links, places)
    points: dict[int, list[Point]] = {}
    for link, origin, slot, target, *_ in links:
        a, b = places[origin], places[target]
        output, upper = columns[a].tops[origin] + SLOTS + 20 * slot, columns[b].tops[target]
        right, left = columns[a].right, columns[b].left
        if b == a:
            y = upper - ABOVE
            way = [(right + BEND, output + BEND * 2)] * (y - output > STEEP)
            points[link] = [*way, (right + NEAR, y), (left - NEAR, y)]
        elif b == a + 1:
            steep = abs(output - upper - SLOTS) > STEEP
            down = 1 if upper > output else -1
            way = [(right + BEND, output + 3 * BEND * down), (left - BEND, upper + BEND)]
            level = [(right + BEND, columns[a].tops[origin] + 15)] * (origin in folded)
            points[link] = [*level, *way[bool(level) :]] if steep else level
        else:
            y = top + LANE * lanes[origin, slot]
            stops = sorted({places[t] for _, o, s, t, *_ in links if (o, s) == (origin, slot)})
            points[link] = [
                *[(right + BEND, columns[a].tops[origin] + BEND)] * (output - y > STEEP),
                (right + beside[origin, slot, a], y),
                *(
                    (columns[stop].left - BESIDE + beside[origin, slot, stop - 1], y)
                    for stop in stops
                    if a + 1 < stop <= b
                ),
                *[(left - BEND, upper + BEND)] * (upper - y > STEEP),
            ]
    return {link: way for link, way in points.items() if way}


def write_points(graph: dict, points: dict[int, list[Point]]) -> None:
    """Write the points into a graph file's content; wires of one output share them."""
    origins = {link: (origin, slot) for link, origin, slot, *_ in graph["links"]}
    ids: dict[tuple, int] = {}
    through: dict[int, list[int]] = defaultdict(list)
    for link, way in points.items():
        for length in range(1, len(way) + 1):
            key = (*origins[link], *way[:length])
            through[ids.setdefault(key, len(ids) + 1)].append(link)
    graph["extra"]["reroutes"] = [
        {
            "id": name,
            **({"parentId": ids[key[:-1]]} if key[:-1] in ids else {}),
            "pos": list(key[-1]),
            "linkIds": through[name],
        }
        for key, name in ids.items()
    ]
    graph["extra"]["linkExtensions"] = [
        {"id": link, "parentId": ids[*origins[link], *way]} for link, way in points.items()
    ]


def _places(columns: list[Column]) -> dict[int, int]:
    return {node: place for place, column in enumerate(columns) for node in column.tops}


def _spans(links: list[list], columns: list[Column]) -> dict[Net, tuple[int, int]]:
    """From which gap between columns to which an output's wires run above nodes."""
    places = _places(columns)
    ends: dict[Net, int] = {}
    for _, origin, slot, target, *_ in links:
        if places[target] > places[origin] + 1:
            net = origin, slot
            ends[net] = max(ends.get(net, 0), places[target] - 1)
    return {net: (places[net[0]], end) for net, end in ends.items()}


def _height(net: Net, columns: list[Column]) -> tuple[int, int]:
    return columns[_places(columns)[net[0]]].tops[net[0]], net[1]


def _offsets(
    lanes: dict[Net, int], links: list[list], places: dict[int, int]
) -> dict[tuple[int, int, int], int]:
    """Where between columns the wires of an output run up or down, apart from each other."""
    users: dict[int, set[tuple[int, Net]]] = defaultdict(set)
    for _, origin, slot, target, *_ in links:
        if (net := (origin, slot)) in lanes and places[target] > places[origin] + 1:
            users[places[origin]].add((lanes[net], net))
            users[places[target] - 1].add((lanes[net], net))
    return {
        (*net, gap): round(BESIDE * (0.4 + 0.3 * rank / max(len(nets) - 1, 1)))
        for gap, nets in users.items()
        for rank, (_, net) in enumerate(sorted(nets))
    }
