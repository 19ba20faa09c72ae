"""The variants of a graph in API format: the product of its inputs' values and of seeds."""

import copy
import hashlib
import itertools
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["Variant", "Variation", "read_graph", "seeds_of", "variants_of", "variation"]

SEEDS = ("seed", "noise_seed")
SEEDS_END = 2**64
LONGEST_SHOWN = 16  # characters of a value in a label


@dataclass(frozen=True)
class Variation:
    """An input of a node and the values that it takes in turn."""

    node: str
    input: str
    name: str
    values: tuple

    def label(self, k: int) -> str:
        """Value k in a few letters; a long one by its number, from 1."""
        short = self.name.rpartition(".")[2]
        text = str(self.values[k])
        return f"{short} {text}" if len(text) <= LONGEST_SHOWN else f"{short} #{k + 1}"


@dataclass(frozen=True, eq=False)
class Variant:
    """One graph of a sweep.

    Args:
        graph: in API format.
        chosen: name of every varied input to its value; "seed" to how much was added to the
            graph's own seed.
        label: the values in a few letters, without the seed.
    """

    graph: dict
    chosen: Mapping[str, object]
    label: str

    @cached_property
    def digest(self) -> str:
        """Hexadecimal digest of what a host computes; titles of nodes do not matter."""
        bare = {
            name: {key: value for key, value in node.items() if key != "_meta"}
            for name, node in self.graph.items()
        }
        return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()

    @property
    def prompt_id(self) -> str:
        """Its id on every host: whoever asks for it again finds it there, running or done."""
        return str(uuid.UUID(self.digest[:32]))


def read_graph(file: Path) -> dict:
    """A graph in API format.

    Raises:
        ValueError: the file holds something else.
        OSError: there is no such file.
    """
    try:
        graph = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: expected a graph in JSON, got something else") from error
    nodes = graph.values() if isinstance(graph, dict) else [None]
    if not all(isinstance(node, dict) and {"class_type", "inputs"} <= set(node) for node in nodes):
        raise ValueError(
            f"{file}: expected a graph in API format; export it again by 'Export (API)' in the "
            "frontend's menu"
        )
    return graph


def variation(graph: dict, text: str) -> Variation:
    """What ``NODE.INPUT=VALUES`` asks for.

    NODE is a node's title, class or id. VALUES is ``@FILE`` with a value a line, a JSON list, or
    values between commas.

    Raises:
        ValueError: there is no such input, or a value does not fit it.
    """
    name, equals, given = text.partition("=")
    if not equals or not given:
        raise ValueError(f"--vary: expected NODE.INPUT=VALUES, got '{text}'")
    node, key = _input(graph, name)
    present = graph[node]["inputs"][key]
    if isinstance(present, list):
        raise ValueError(
            f"--vary {name}: expected an input that holds a value, got one that is connected to "
            f"node {present[0]}; vary that one"
        )
    values = tuple(dict.fromkeys(_as(present, value, name) for value in _values(given)))
    if not values:
        raise ValueError(f"--vary {name}: expected one value or more, got none")
    return Variation(node, key, name, values)


def seeds_of(text: str) -> tuple[int, ...]:
    """What ``--seeds`` asks for, to be added to the graph's seed: a count, or numbers with commas.

    Raises:
        ValueError: it is neither.
    """
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if "," not in text and numbers and numbers[0] > 0:
        return tuple(range(numbers[0]))
    if "," not in text or not numbers or min(numbers) < 0:
        raise ValueError(f"--seeds: expected how many, or numbers with commas, got '{text}'")
    return tuple(dict.fromkeys(numbers))


def variants_of(
    graph: dict, variations: Sequence[Variation], seeds: Sequence[int] = ()
) -> list[Variant]:
    """The product, seeds last; the same graph comes once.

    Args:
        seeds: what is added to the graph's seed; empty: the seed stays, and is not told.

    Raises:
        ValueError: there are seeds, and no input that holds one.
    """
    places = list(_seed_inputs(graph)) if seeds else []
    if seeds and not places:
        raise ValueError("--seeds: expected a graph with an input 'seed' or 'noise_seed', got none")
    found: dict[str, Variant] = {}
    for choice in itertools.product(*(range(len(each.values)) for each in variations)):
        for more in seeds or (None,):
            changed, chosen = copy.deepcopy(graph), {}
            for each, k in zip(variations, choice, strict=True):
                changed[each.node]["inputs"][each.input] = chosen[each.name] = each.values[k]
            for node, key in places:
                changed[node]["inputs"][key] = (graph[node]["inputs"][key] + more) % SEEDS_END
            if more is not None:
                chosen["seed"] = more
            label = ", ".join(each.label(k) for each, k in zip(variations, choice, strict=True))
            variant = Variant(changed, chosen, label)
            found.setdefault(variant.digest, variant)
    return list(found.values())


def _input(graph: dict, name: str) -> tuple[str, str]:
    """Node and input of ``NODE.INPUT``; both may have dots."""
    for place in (k for k, letter in enumerate(name) if letter == "."):
        called, key = name[:place], name[place + 1 :]
        nodes = list(_nodes_called(graph, called))
        if len(nodes) > 1:
            raise ValueError(
                f"--vary {name}: several nodes are called '{called}'; take the id of one: "
                f"{', '.join(nodes)}"
            )
        if not nodes:
            continue
        known = graph[nodes[0]]["inputs"]
        if key not in known:
            raise ValueError(
                f"--vary {name}: expected an input of '{called}' ({', '.join(known)}), got '{key}'"
            )
        return nodes[0], key
    known = dict.fromkeys(_title(node) for node in graph.values())
    raise ValueError(f"--vary {name}: expected NODE.INPUT with a node of: {', '.join(known)}")


def _title(node: dict) -> str:
    return node.get("_meta", {}).get("title") or node["class_type"]


def _nodes_called(graph: dict, called: str) -> Iterator[str]:
    for node_id, node in graph.items():
        if called in (node_id, _title(node), node["class_type"]):
            yield node_id


def _values(given: str) -> list:
    if given.startswith("@"):
        try:
            lines = Path(given[1:]).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ValueError(f"--vary: cannot read {given[1:]}: {error.strerror}") from error
        return [line.strip() for line in lines if line.strip()]
    if not given.startswith("["):
        return [part.strip() for part in given.split(",")]
    try:
        return list(json.loads(given))
    except ValueError as error:
        raise ValueError(f"--vary: expected a JSON list, got {given}") from error


def _as(present: object, value: object, name: str) -> object:
    """``value`` in the type of the one that is in the graph."""
    text = str(value)
    try:
        if isinstance(present, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(present, float):
            return float(text)
        # The frontend writes 1.0 as 1: a whole number in the graph may be one that need not be.
        if isinstance(present, int):
            return int(text) if text.lstrip("-").isdigit() else float(text)
        return text
    except (KeyError, ValueError) as error:
        raise ValueError(f"--vary {name}: expected a value like {present}, got '{text}'") from error


def _seed_inputs(graph: dict) -> Iterator[tuple[str, str]]:
    """Node and input of every seed; one that is connected is where its number comes from."""
    found = set()
    for node_id, node in graph.items():
        for key in SEEDS:
            place, value = (node_id, key), node["inputs"].get(key)
            if isinstance(value, list):
                place = (value[0], "value")
                value = graph.get(value[0], {}).get("inputs", {}).get("value")
            if isinstance(value, int) and place not in found:
                found.add(place)
                yield place
