"""The loader of OpenCLIP models: from files, or from CLIP models that ComfyUI has loaded."""

from pathlib import Path

from comfy_api.latest import io

from ..host.model_files import usable_name
from ..host.openclip import (
    ACTIVATIONS,
    NORMALIZATIONS,
    PRECISIONS,
    OpenClip,
    load_openclip,
)
from ..host.openclip_from_host import openclip_from_host
from ..host.openclip_weights import architectures, find_weights, open_clip, weight_names
from . import sockets
from .bases import LoaderNode
from .notices import notify

__all__ = ["NODES"]


class ZMagicLoadOpenCLIP(LoaderNode):
    """Load the attribute network of Text, Style, Image Similarity and Preference Energy."""

    NAMES = ("architecture", "weights")

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicLoadOpenCLIP",
            display_name="Load OpenCLIP",
            description=(
                "Loads an OpenCLIP model from a local file, or takes CLIP models that ComfyUI has "
                "loaded already. For Text, Style, Image Similarity and Preference Energy."
            ),
            search_aliases=[
                "open_clip",
                "CLIP guidance",
                "clip loader",
                "ViT-B-32",
                "PickScore",
                "HPSv2",
                "Z-Magic",
            ],
            inputs=[
                io.Combo.Input(
                    "architecture",
                    options=architectures(),
                    default="ViT-B-32",
                    tooltip=(
                        "What open_clip calls the model that the weights belong to. Not used when "
                        "'clip_vision' is connected."
                    ),
                ),
                io.Combo.Input(
                    "weights",
                    options=weight_names(),
                    default=weight_names()[0],
                    tooltip=(
                        "File in models/open_clip or models/clip_vision, in open_clip's own "
                        "format or with both towers in that of transformers; safetensors if "
                        "possible. Not used when 'clip_vision' is connected."
                    ),
                ),
                io.Boolean.Input(
                    "download",
                    default=False,
                    tooltip=(
                        "Off: nothing is ever fetched. On: if the file is missing and named after "
                        "published weights, open_clip downloads it into models/open_clip, once."
                    ),
                ),
                io.Combo.Input(
                    "precision",
                    options=["auto", *PRECISIONS],
                    default="auto",
                    advanced=True,
                    tooltip=(
                        "The precision of the computation. auto: fp32 on the CPU, elsewhere what "
                        "ComfyUI uses for text encoders. fp32 is exact and takes twice the memory "
                        "of fp16."
                    ),
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="A CLIP image tower that ComfyUI has loaded, used instead of the file.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip=(
                        "The text encoder that was trained with 'clip_vision'. Needed for Text "
                        "Energy only."
                    ),
                ),
                io.Combo.Input(
                    "normalization",
                    options=list(NORMALIZATIONS),
                    default="automatic",
                    optional=True,  # graphs from before it was there lack it
                    advanced=True,
                    tooltip=(
                        "The scale of colors that the weights were trained on. automatic: as "
                        "open_clip_config.json beside the file says, or the published weights that "
                        "it is named after; else as most weights of the architecture, which the "
                        "node says."
                    ),
                ),
                io.Combo.Input(
                    "activation",
                    options=list(ACTIVATIONS),
                    default="automatic",
                    optional=True,  # graphs from before it was there lack it
                    advanced=True,
                    tooltip=(
                        "The activation that the weights were trained with; QuickGELU for OpenAI's "
                        "and others. automatic: as open_clip_config.json beside the file says, "
                        "else the architecture's own."
                    ),
                ),
            ],
            outputs=[
                sockets.OpenClip.Output(
                    display_name="openclip",
                    tooltip="For Text, Style, Image Similarity and Preference Energy.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, architecture: str = "", weights: str = "") -> bool | str:
        """What a shared workflow names and is not here gets its own message when it runs."""
        fits = usable_name(architecture, "architecture")
        return usable_name(weights, "weights") if fits is True else fits

    @classmethod
    def find(cls, architecture: str, weights: str, download: bool = False) -> Path:
        return find_weights(architecture, weights, download=download)

    @classmethod
    def load(cls, path: Path, architecture: str, precision: str, **options) -> OpenClip:
        loaded = load_openclip(architecture, path, precision, **options)
        notify(cls, [loaded.assumed] if loaded.assumed else [])
        return loaded

    @classmethod
    def run(
        cls,
        architecture: str,
        weights: str,
        download: bool,
        precision: str,
        clip_vision=None,
        clip=None,
        normalization: str = "automatic",
        activation: str = "automatic",
    ) -> io.NodeOutput:
        if clip_vision is not None:
            return io.NodeOutput(openclip_from_host(clip_vision, clip))
        if clip is not None:
            raise ValueError("'clip' is connected without 'clip_vision', expected both or neither")
        open_clip()  # whose absence is said before that of the file
        path = cls.find(architecture, weights, download)
        options = {"download": download, "normalization": normalization, "activation": activation}
        return io.NodeOutput(cls.load(path, architecture, precision, **options))


NODES = [ZMagicLoadOpenCLIP]
