"""What a message calls a node."""

from comfy_api.latest import io

__all__ = ["display_name", "title"]


def display_name(node: type[io.ComfyNode]) -> str:
    """The name that a node has in ComfyUI: ``Load OpenCLIP``."""
    # Not GET_SCHEMA: ComfyUI executes a locked clone of the class, which may not keep a schema.
    return (node.SCHEMA or node.define_schema()).display_name


def title(node: type[io.ComfyNode]) -> str:
    """``Load OpenCLIP (node 12)``: the node's display name and, in a graph, its number there."""
    number = getattr(node.hidden, "unique_id", None)
    return display_name(node) if number is None else f"{display_name(node)} (node {number})"
