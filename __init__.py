"""Z-Magic: zero-shot multi-attribute guidance for ComfyUI.

Nothing is imported at module level: a missing optional package must never keep the other nodes
from loading, and the tests load this package without a host.
"""

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint():
    """The host's V3 entry point: returns the extension that lists this pack's nodes.

    Raises RuntimeError on a host that is too old; the host prints its sentence.
    """
    from .host.version import refuse_old_host, running_version

    refuse_old_host(running_version())  # before anything is imported that an old one lacks
    from .nodes.extension import ZMagicExtension

    return ZMagicExtension()
