"""What the nodes say of themselves: each input and output by name, with its tooltip.

The help pages and the translations of the nodes are made from it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Text", "inputs", "node_schemas", "outputs"]


@dataclass(frozen=True)
class Text:
    """An input or output as users see it.

    Attributes:
        key: its name in ComfyUI's frontend: ``method.face`` belongs to the choice ``method``.
        name: what stands beside the socket or widget.
        sentences: its tooltip; where slots grow, of all of them and of each.
        choices: those of ``method`` under which the node has it; none: it always has.
        slots: the names of the slots, where they grow.
        slot: what those begin with.
    """

    key: str
    name: str
    sentences: tuple[str, ...]
    choices: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    slot: str = ""


def node_schemas() -> dict[str, Any]:
    """The schema of each node by its id, in alphabetical order; needs ComfyUI and the pack."""
    import zmagic

    nodes = asyncio.run(asyncio.run(zmagic.comfy_entrypoint()).get_node_list())
    return {node.__name__: node.GET_SCHEMA() for node in sorted(nodes, key=lambda n: n.__name__)}


def inputs(schema: Any) -> list[Text]:
    """The inputs in their order; those of a choice follow it, once for each of their tooltips."""
    return [text for each in schema.inputs for text in (_input(each), *_of_choices(each))]


def outputs(schema: Any) -> list[Text]:
    """The outputs in their order, by their numbers."""
    return [
        Text(str(k), each.display_name or each.io_type, (each.tooltip,))
        for k, each in enumerate(schema.outputs)
    ]


def _input(each: Any) -> Text:
    template = getattr(each, "template", None)
    if not hasattr(template, "names"):
        return Text(each.id, each.id, (each.tooltip,))
    sentences = each.tooltip, template.input.tooltip
    return Text(each.id, each.id, sentences, slots=tuple(template.names), slot=template.input.id)


def _of_choices(each: Any) -> list[Text]:
    found: dict[tuple[str, str], Text] = {}
    for option in getattr(each, "options", None) or ():
        for inner in getattr(option, "inputs", ()):
            new = Text(f"{each.id}.{inner.id}", inner.id, (inner.tooltip,))
            known = found.setdefault((inner.id, inner.tooltip), new)
            choices = (*known.choices, option.key)
            found[inner.id, inner.tooltip] = replace(known, choices=choices)
    return list(found.values())
