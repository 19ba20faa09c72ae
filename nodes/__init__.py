"""The nodes of the pack: each module lists its own in ``NODES``."""

from comfy_api.latest import ComfyExtension, io
from typing_extensions import override

from . import demo_nodes as model_nodes
from . import (
    energy_nodes,
    face_location_nodes,
    face_model_nodes,
    face_nodes,
    onnx_nodes,
    openclip_model_nodes,
    openclip_nodes,
    report_nodes,
    sampler_nodes,
    segmentation_nodes,
    settings_nodes,
)


class ZMagicExtension(ComfyExtension):
    """What the host asks for the pack's nodes."""

    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        modules = (
            energy_nodes,
            openclip_nodes,
            face_nodes,
            face_location_nodes,
            face_model_nodes,
            segmentation_nodes,
            onnx_nodes,
            model_nodes,
            openclip_model_nodes,
            sampler_nodes,
            settings_nodes,
            report_nodes,
        )
        return [node for module in modules for node in module.NODES]
