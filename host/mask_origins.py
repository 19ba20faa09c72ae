"""Which picture a mask in a graph was made on: it may be the reference, by mistake.

Read from the graph as ComfyUI runs it. Masks and pictures are followed back to the files that they
were loaded from; a picture that was sampled is no longer that of a file, and ends the way.
"""

from collections.abc import Iterator
from typing import Any

from comfy_execution.graph_utils import is_link

__all__ = ["loaded_with"]

# Nodes of ComfyUI that load a picture and its mask, or its mask alone, from the file in ``image``.
LOADERS = ("LoadImage", "LoadImageMask", "LoadImageOutput")
FOLLOWED = ("IMAGE", "MASK")
# What every node of ComfyUI calls the pictures that it encodes, for image to image and inpainting.
ENCODED = "pixels"

Graph = dict[str, dict[str, Any]]


def loaded_with(graph: Graph, number: str, mask: str, picture: str) -> str | None:
    """The number of the node that loads both a mask and a reference of node ``number``.

    None where they come from different files or from none; and where the file is also encoded, so
    that the picture which is made has its layout.

    Args:
        graph: nodes by their numbers, as posted to ComfyUI.
        number: of the node that has both inputs.
        mask: the input where the mask is connected.
        picture: the input where the reference is connected.
    """
    inputs = graph.get(number, {}).get("inputs", {})
    of_mask, of_picture = (dict(_files(graph, inputs.get(name))) for name in (mask, picture))
    common = of_mask.keys() & of_picture.keys()
    for node in graph.values() if common else ():
        common -= dict(_files(graph, node["inputs"].get(ENCODED))).keys()
    return min((of_mask[file] for file in common), default=None)


def _files(graph: Graph, link: Any) -> Iterator[tuple[str, str]]:
    """Files, and the nodes that load them, from which the picture or mask at ``link`` comes."""
    waiting, seen = [link], set()
    while waiting:
        link = waiting.pop()
        if not _is_followed(graph, link) or link[0] in seen:
            continue
        seen.add(link[0])
        node = graph[link[0]]
        file = node["inputs"].get("image")
        if node["class_type"] in LOADERS and isinstance(file, str):
            yield file.removesuffix(" [input]"), link[0]
        waiting += node["inputs"].values()


def _is_followed(graph: Graph, link: Any) -> bool:
    """Whether a value in a graph is a link to an output for pictures or masks."""
    from nodes import NODE_CLASS_MAPPINGS

    if not is_link(link) or link[0] not in graph:
        return False
    kind = NODE_CLASS_MAPPINGS.get(graph[link[0]]["class_type"])
    types = getattr(kind, "RETURN_TYPES", ())
    return isinstance(link[1], int) and link[1] < len(types) and types[link[1]] in FOLLOWED
