"""The nodes of the pack as ComfyUI asks for them: each module lists its own in ``NODES``."""

from importlib import import_module
from pathlib import Path

from comfy_api.latest import ComfyExtension, io
from typing_extensions import override


class ZMagicExtension(ComfyExtension):
    """What ComfyUI asks for the pack's nodes."""

    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes of every file of this folder that is named ``..._node.py`` or ``_nodes.py``."""
        names = "*_node.py", "*_nodes.py"
        files = sorted(file for name in names for file in Path(__file__).parent.glob(name))
        modules = [import_module(f".{file.stem}", __package__) for file in files]
        return [node for module in modules for node in module.NODES]
