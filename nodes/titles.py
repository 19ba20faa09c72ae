"""What a message calls a node."""

from comfy_api.latest import io

__all__ = ["title"]


def title(node: type[io.ComfyNode]) -> str:
    """``Load OpenCLIP (node 12)``: the node's display name and, in a graph, its number there."""
    # Not GET_SCHEMA: the host executes a locked clone of the class, which may not keep a schema.
    name = (node.SCHEMA or node.define_schema()).display_name
    number = getattr(node.hidden, "unique_id", None)
    return name if number is None else f"{name} (node {number})"
