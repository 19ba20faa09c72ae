"""Z-Magic: zero-shot multi-attribute guidance for ComfyUI.

Nothing is imported at module level: a missing optional package must never keep the other nodes
from loading, and the tests load this package without a host.
"""

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint():
    """The host's V3 entry point: returns the extension that lists this pack's nodes."""
    from .nodes import ZMagicExtension

    return ZMagicExtension()
