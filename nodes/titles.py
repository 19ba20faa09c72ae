"""What a message calls a node."""

from comfy_api.latest import io

__all__ = ["title"]


def title(node: type[io.ComfyNode]) -> str:
    """``Load OpenCLIP (node 12)``: the node's display name and, in a graph, its number there."""
    name = node.GET_SCHEMA().display_name
    number = getattr(node.hidden, "unique_id", None)
    return name if number is None else f"{name} (node {number})"
