"""Foreign graphs, checked before anything walks through them: no circles, no explosions."""

from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from math import prod
from typing import TYPE_CHECKING, Any

from .protocol_buffers import set_items

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["LARGEST_TENSOR", "Unusable", "check_functions", "check_sizes", "sort_operators"]


class Unusable(ValueError):
    """What is wrong with a network: the rest of a sentence that begins with the file's name."""


# More than any network has; a file may unfold to more, by functions of functions.
MOST_OPERATORS = 100_000

# Numbers in one tensor, for one picture: 1 GiB in single precision.
LARGEST_TENSOR = 1 << 28


def sort_operators(model: "ModelProto") -> None:
    """Put each operator behind those that it reads from, as the standard wants it.

    Raises:
        Unusable: they form a circle, read what nothing makes, or make a tensor twice.
    """
    graph = model.graph
    given = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    made = Counter(name for node in graph.node for name in node.output if name)
    twice = [name for name, count in made.items() if count > 1 or name in given]
    needs = [[name for name in node.input if name] for node in graph.node]
    by = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    missing = [name for names in needs for name in names if name not in by and name not in given]
    order = TopologicalSorter(
        {i: [by[name] for name in names if name in by] for i, names in enumerate(needs)}
    )
    try:
        sequence = list(order.static_order())
    except CycleError as error:
        circle = " -> ".join(graph.node[i].op_type for i in error.args[1][:6])
        raise Unusable(
            "is damaged: its operators read from each other in a circle, export it again\n"
            f"({circle})"
        ) from error
    if twice:
        raise Unusable(
            f"is damaged: several operators make one tensor, export it again\n({twice[0]!r})"
        )
    if missing:
        raise Unusable(
            "is damaged: an operator reads a tensor that nothing makes, export it again\n"
            f"({missing[0]!r})"
        )
    seen: set[int] = set()
    for i, names in enumerate(needs):
        if any(name in by and by[name] not in seen for name in names):
            set_items(graph.node, [graph.node[i] for i in sequence])
            return
        seen.add(i)


def check_functions(model: "ModelProto") -> None:
    """See that a file's own functions end, and unfold to a network of a size that there is.

    Raises:
        Unusable: they call each other in a circle, or unfold to more.
    """
    functions = {(function.domain, function.name): function for function in model.functions}
    calls = {
        key: Counter((node.domain, node.op_type) for node in _operators(function.node))
        for key, function in functions.items()
    }
    inner = {
        key: [called for called in counts if called in functions] for key, counts in calls.items()
    }
    try:
        order = list(TopologicalSorter(inner).static_order())
    except CycleError as error:
        circle = " -> ".join(name for _, name in error.args[1][:6])
        raise Unusable(
            f"is damaged: its functions call each other in a circle, export it again\n({circle})"
        ) from error
    sizes: dict[tuple[str, str], int] = {}
    for key in order:
        sizes[key] = sum(sizes.get(called, 1) * count for called, count in calls[key].items())
    whole = sum(sizes.get((node.domain, node.op_type), 1) for node in _operators(model.graph.node))
    if whole > MOST_OPERATORS:
        raise Unusable(
            f"has {whole:,} operators, more than any network: use another file\n"
            f"(at most {MOST_OPERATORS:,} are read)"
        )


def check_sizes(tensors: Iterable) -> None:
    """See that tensors of known sizes are of sizes that there are.

    Args:
        tensors: the ``onnx.ValueInfoProto`` of each.

    Raises:
        Unusable: one is larger than LARGEST_TENSOR.
    """
    for value in tensors:
        sides = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if prod(max(side, 1) for side in sides) > LARGEST_TENSOR:
            raise Unusable(
                f"makes a tensor of {' x '.join(map(str, sides))} numbers, more than fits: use "
                f"another file\n({value.name!r})"
            )


def _operators(nodes: Any) -> Iterator:
    """Operators and those in the graphs inside them; a message is at most 100 deep."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
            for graph in graphs:
                yield from _operators(graph.node)
