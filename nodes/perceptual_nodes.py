"""The nodes of perceptual distance: the loader of LPIPS networks, and the energy."""

from pathlib import Path

from comfy_api.latest import io
from torch import Tensor

from ..guidance.energies import Energy, Perceptual
from ..host.lpips_networks import classifier_names, find_classifier, load_lpips
from ..host.networks import Network
from . import sockets
from .bases import EnergyNode, LoaderNode
from .condition_inputs import REFERENCE_BATCH
from .picture_inputs import pictures_and_mask, reference_mask_input

__all__ = ["NODES"]

# More than any picture has.
LARGEST_SIDE = 8192


class ZMagicLoadLpips(LoaderNode):
    """Load the attribute network of the Perceptual (LPIPS) Energy."""

    @classmethod
    def schema(cls) -> io.Schema:
        options = classifier_names()
        return io.Schema(
            node_id="ZMagicLoadLpips",
            display_name="Load LPIPS Network",
            description=(
                "Loads a classifier of torchvision (SqueezeNet, AlexNet or VGG16) with the linear "
                "heads of LPIPS for it, for the Perceptual (LPIPS) Energy."
            ),
            search_aliases=["LPIPS", "perceptual loss", "VGG", "AlexNet", "SqueezeNet", "Z-Magic"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=options,
                    default=options[0],
                    tooltip=(
                        "File in models/lpips, torchvision's .pth or the same as safetensors. The "
                        "heads for it lie beside it: squeeze.pth, alex.pth or vgg.pth. Which of "
                        "the three it is is seen in the file."
                    ),
                ),
            ],
            outputs=[
                sockets.LpipsNetwork.Output(
                    display_name="lpips", tooltip="For the Perceptual (LPIPS) Energy."
                )
            ],
        )

    @classmethod
    def find(cls, model_name: str) -> Path:
        return find_classifier(model_name)

    @classmethod
    def load(cls, path: Path) -> Network:
        return load_lpips(path)


class ZMagicPerceptual(EnergyNode):
    """Pull the picture towards what looks like a reference."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicPerceptual",
            display_name="Perceptual (LPIPS) Energy",
            description=(
                "Pulls the picture towards what looks like a reference: structures and textures "
                "in their places, as people compare pictures, not pixel by pixel."
            ),
            search_aliases=[
                "LPIPS",
                "perceptual loss",
                "perceptual distance",
                "VGG loss",
                "structure",
                "image similarity",
                "restoration",
            ],
            inputs=[
                sockets.LpipsNetwork.Input(
                    "lpips", tooltip="The attribute network: Load LPIPS Network."
                ),
                io.Image.Input(
                    "reference",
                    tooltip=(
                        "The picture to look like, place by place. Any size: scaled to fill the "
                        f"picture. {REFERENCE_BATCH}"
                    ),
                ),
                io.Int.Input(
                    "side",
                    default=256,
                    min=0,
                    max=LARGEST_SIDE,
                    step=32,
                    tooltip=(
                        "Larger pictures are compared scaled down, to a shorter side of so many "
                        "pixels. 256 is quick and sees what a glance sees, 512 finer texture; 0 is "
                        "the picture's own size, which needs much memory with VGG16."
                    ),
                ),
                reference_mask_input("reference"),
            ],
        )

    @classmethod
    def energy(
        cls,
        lpips: Network,
        reference: Tensor,
        side: int,
        reference_mask: Tensor | None = None,
    ) -> Energy:
        photograph, mask = pictures_and_mask(reference, reference_mask)
        return Perceptual(lpips, photograph, side=side, mask=mask)


NODES = [ZMagicLoadLpips, ZMagicPerceptual]
