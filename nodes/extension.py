"""The nodes of the pack as ComfyUI asks for them: each module lists its own in ``NODES``."""

from comfy_api.latest import ComfyExtension, io
from typing_extensions import override

from . import (
    combine_conditions_node,
    compare_runs_node,
    demo_nodes,
    face_energy_nodes,
    face_loader_nodes,
    locate_face_node,
    onnx_nodes,
    openclip_energy_nodes,
    openclip_loader_node,
    picture_energy_nodes,
    sampler_nodes,
    segmentation_nodes,
    settings_node,
)


class ZMagicExtension(ComfyExtension):
    """What ComfyUI asks for the pack's nodes."""

    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        modules = (
            picture_energy_nodes,
            combine_conditions_node,
            openclip_energy_nodes,
            face_energy_nodes,
            locate_face_node,
            face_loader_nodes,
            segmentation_nodes,
            onnx_nodes,
            demo_nodes,
            openclip_loader_node,
            sampler_nodes,
            settings_node,
            compare_runs_node,
        )
        return [node for module in modules for node in module.NODES]
