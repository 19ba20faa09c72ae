"""The socket types that the nodes of this pack exchange."""

from comfy_api.latest import io

__all__ = ["Conditions", "Settings"]

# A tuple of guidance.Condition in the order in which they were connected; never mutated.
Conditions = io.Custom("ZMAGIC_CONDITIONS")

# A host.hooks.HostSettings; frozen.
Settings = io.Custom("ZMAGIC_SETTINGS")
