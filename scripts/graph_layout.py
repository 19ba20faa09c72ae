"""Places of nodes, wires, groups and the note of a graph: nothing covered, all in one window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from graph_groups import ENERGIES, GROUPS, REFERENCES, columns_of, group_of
from graph_wires import BESIDE, LANE, Column, lanes_above, points_of_links, write_points

__all__ = ["NOTE", "Layout", "note_widths", "widths"]

Box = tuple[float, float, float, float]  # left, top, width and height with the title

NOTE = "MarkdownNote"

TITLE = 30  # pixels of a node's title, above its position
GROUP_TITLE = 40  # pixels of a group's title
MARGIN = 14  # pixels between a group's frame and its nodes
APART, AROUND = 30, 60  # pixels between nodes of a column; where a wire runs between them
TALLEST = 1062  # pixels of a column; what is more goes into one beside it
WHOLE = 1270  # pixels of the graph: 900 in a window, at a scale of 0.7 and more

# Of nodes in each column of graph_groups.
WIDTHS = (250, 272, 272, 245, 400, 255)
NARROWEST_NOTE = 290


def widths(graph: dict) -> dict[int, int]:
    """How wide each node of a graph file's content is made, without the note."""
    return {name: WIDTHS[column] for name, column in columns_of(graph).items()}


def note_widths() -> list[int]:
    """How wide a note may be made."""
    pairs = zip(WIDTHS, WIDTHS[1:], strict=False)
    beside = {a + BESIDE + b for a, b in [*pairs, *zip(WIDTHS, WIDTHS, strict=True)]}
    return sorted({NARROWEST_NOTE, *WIDTHS, *beside})


@dataclass
class Stack:
    """Nodes below each other, from the left side on."""

    column: int
    nodes: list[int]
    left: int = 0

    @property
    def right(self) -> int:
        return self.left + WIDTHS[self.column]


class Layout:
    """The places of a graph's nodes.

    Args:
        graph: a graph file's content without a note.
        boxes: of its nodes, as each renderer draws them, with pictures in those that show some.
        note_heights: of its note, by width, in the renderer that makes it tallest.
    """

    def __init__(self, graph: dict, boxes: list[dict[str, Box]], note_heights: dict[int, int]):
        self.graph = graph
        self.heights = {
            node["id"]: round(max(box[str(node["id"])][3] for box in boxes))
            for node in graph["nodes"]
        }
        self.note_heights = note_heights
        self.stacks = self._stacks()
        self.inside = self._inside()
        left = 0
        for stack in self.stacks:
            stack.left = left
            left = stack.right + BESIDE

    def write(self, note: dict) -> None:
        """Write all places into the graph, and the note."""
        links = self.graph["links"]
        lanes = lanes_above(links, self._columns(0))
        above = LANE * (max(lanes.values()) + 2) if lanes else 0
        columns = self._columns(GROUP_TITLE + above)
        folded = {n["id"] for n in self.graph["nodes"] if n["flags"].get("collapsed")}
        way = points_of_links(links, columns, lanes, GROUP_TITLE + LANE // 2, folded)
        write_points(self.graph, way)
        places = {name: (c.left, top) for c in columns for name, top in c.tops.items()}
        for node in self.graph["nodes"]:
            left, top = places[node["id"]]
            node["pos"] = [left, top + TITLE]
        bottom = max(self._bottom(column) for column in columns)
        left, top, width = self._place_of_note(columns, bottom, max(bottom, WHOLE - MARGIN))
        note["pos"] = [left, top + TITLE]
        note["size"] = [width, self.note_heights[width] - TITLE]
        self.graph["nodes"].append(note)
        self._write_groups(max(bottom, top + self.note_heights[width] if left >= 0 else 0))

    def _stacks(self) -> list[Stack]:
        column_of = columns_of(self.graph)
        by_column: dict[int, list[int]] = defaultdict(list)
        for node in self._ordered(column_of):
            by_column[column_of[node]].append(node)
        return [
            Stack(column, part)
            for column, nodes in sorted(self._relieved(by_column).items())
            for part in self._parts(nodes)
        ]

    def _relieved(self, by_column: dict[int, list[int]]) -> dict[int, list[int]]:
        """References and energies as one stack, where one of them alone would be too tall."""
        both = [by_column.get(column, []) for column in (REFERENCES, ENERGIES)]
        if max(map(self._height, both)) <= TALLEST:
            return by_column
        kept = {column: nodes for column, nodes in by_column.items() if column != REFERENCES}
        return kept | {ENERGIES: [*both[0], *both[1]]}

    def _ordered(self, column_of: dict[int, int]) -> list[int]:
        """Nodes behind those that they take something from; the model's loader is the first."""
        links = [k for k in self.graph["links"] if column_of[k[1]] == column_of[k[3]]]
        depth = dict.fromkeys(column_of, 0)
        for _ in column_of:
            for _, origin, _, target, *_ in links:
                depth[target] = max(depth[target], depth[origin] + 1)
        gives_model = {
            node["id"]: any(slot["type"] == "MODEL" for slot in node.get("outputs") or ())
            for node in self.graph["nodes"]
        }
        return sorted(column_of, key=lambda name: (depth[name], not gives_model[name]))

    def _parts(self, stack: list[int]) -> list[list[int]]:
        """The stack in as few columns as are no taller than allowed, about equally tall."""
        best = self._filled(stack, TALLEST)
        for limit in range(TALLEST, 0, -20):
            parts = self._filled(stack, limit)
            if len(parts) > len(best):
                break
            best = parts
        return best

    def _filled(self, stack: list[int], limit: int) -> list[list[int]]:
        """The stack in columns up to a height, in its order."""
        parts: list[list[int]] = [[]]
        for name in stack:
            if parts[-1] and self._height([*parts[-1], name]) > limit:
                parts.append([])
            parts[-1].append(name)
        return parts

    def _height(self, stack: list[int]) -> int:
        return sum(self.heights[name] + APART for name in stack) - APART

    def _inside(self) -> set[int]:
        """Nodes that a wire from their own column comes to."""
        return {
            target
            for _, origin, _, target, *_ in self.graph["links"]
            for stack in self.stacks
            if origin in stack.nodes and target in stack.nodes
        }

    def _columns(self, top: int) -> list[Column]:
        columns = []
        for stack in self.stacks:
            tops: dict[int, int] = {}
            y = top
            for name in stack.nodes:
                y += (AROUND if name in self.inside else APART) if tops else 0
                tops[name] = y
                y += self.heights[name]
            columns.append(Column(stack.left, stack.right, tops))
        return columns

    def _bottom(self, column: Column) -> int:
        return max(top + self.heights[name] for name, top in column.tops.items())

    def _place_of_note(
        self, columns: list[Column], bottom: int, lowest: int
    ) -> tuple[int, int, int]:
        """Left, top and width of a place below nodes, else left of all."""
        places = []
        for first, last in self._runs():
            left, right = columns[first].left, columns[last].right
            top = max(self._bottom(column) for column in columns[first : last + 1]) + APART
            height = self.note_heights.get(right - left)
            if height and top + height <= lowest:
                places.append((max(top + height, bottom), left, top, right - left))
        # The graph as low as it gets; of such places the left one, which is seen first.
        return min(places)[1:] if places else (-NARROWEST_NOTE - BESIDE, 0, NARROWEST_NOTE)

    def _runs(self) -> Iterator[tuple[int, int]]:
        """First and last of one or two neighboring columns of one group."""
        groups = [group_of(stack.column) for stack in self.stacks]
        for more in (0, 1):
            for first in range(len(groups) - more):
                if groups[first] == groups[first + more]:
                    yield first, first + more

    def _write_groups(self, bottom: int) -> None:
        frames: dict[str, list[int]] = {}
        for stack in self.stacks:
            frame = frames.setdefault(group_of(stack.column), [stack.left, stack.right])
            frame[1] = stack.right
        self.graph["groups"] = [
            {
                "id": number,
                "title": title,
                "bounding": [left - MARGIN, 0, right - left + 2 * MARGIN, bottom + MARGIN],
                "color": GROUPS[title],
                "font_size": 24,
                "flags": {},
            }
            for number, (title, (left, right)) in enumerate(frames.items(), 1)
        ]
