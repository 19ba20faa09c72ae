"""The energy node that compares pictures as OpenCLIP, DINO or SigLIP see them."""

from comfy_api.latest import io
from torch import Tensor

from ..guidance.energies import ImageSimilarity, PatchSimilarity
from ..host.openclip import OpenClip
from ..host.similarity_towers import (
    SimilarityTower,
    tower_of_clip_vision,
    tower_of_openclip,
)
from . import sockets
from .alternatives import require_one
from .bases import EnergyNode, Made
from .parsing.numbers import parse_weights
from .picture_inputs import SEVERAL_TOGETHER, grayed, pictures_and_mask, reference_mask_input

__all__ = ["NODES"]

# How pictures are compared with references.
GLOBAL, PATCHES = "global", "patches"

# Pixels; nothing that sees more fits into memory with its gradient.
LARGEST_SIZE = 2048


class ZMagicImageSimilarity(EnergyNode):
    """Pull the picture towards what reference pictures show."""

    OWN_LAYOUT = "reference"

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicImageSimilarity",
            display_name="Image Similarity Energy",
            description=(
                "Pulls the picture towards what reference pictures show and how they look, as "
                "OpenCLIP, DINO or SigLIP see them; where things are does not matter."
            ),
            search_aliases=[
                "CLIP vision",
                "variation",
                "semantic similarity",
                "IPAdapter",
                "DINOv2",
                "DINOv3",
                "SigLIP",
                "product",
                "subject",
            ],
            inputs=[
                io.Image.Input(
                    "reference",
                    tooltip=f"What to resemble. Any size; {SEVERAL_TOGETHER}",
                ),
                sockets.OpenClip.Input(
                    "openclip",
                    optional=True,
                    tooltip="From Load OpenCLIP. Connect this or 'clip_vision'.",
                ),
                io.String.Input(
                    "reference_weights",
                    default="",
                    placeholder="2, 1",
                    tooltip=(
                        "One number for each reference, separated by commas. Empty: all count the "
                        "same."
                    ),
                ),
                reference_mask_input("reference"),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip=(
                        "From Load CLIP Vision instead of OpenCLIP: DINOv2 and DINOv3 know things "
                        "and products again, SigLIP and CLIP know what they are."
                    ),
                ),
                io.Combo.Input(
                    "match",
                    options=[GLOBAL, PATCHES],
                    default=GLOBAL,
                    optional=True,  # graphs from before it was there lack it
                    tooltip=(
                        "global: the pictures are compared as wholes. patches: every part of the "
                        "references is to be found somewhere in the picture; for a subject or a "
                        "product, with 'reference_mask' around it."
                    ),
                ),
                io.Int.Input(
                    "size",
                    default=0,
                    min=0,
                    max=LARGEST_SIZE,
                    optional=True,  # graphs from before it was there lack it
                    advanced=True,
                    tooltip=(
                        "Side in pixels at which DINO and SigLIP 2 look at the picture; 0: as "
                        "they are published. Larger sees finer detail and costs by the square. "
                        "Others have one size."
                    ),
                ),
            ],
        )

    @classmethod
    def energy(
        cls,
        reference: Tensor,
        openclip: OpenClip | None = None,
        reference_weights: str = "",
        reference_mask: Tensor | None = None,
        clip_vision=None,
        match: str = GLOBAL,
        size: int = 0,
    ) -> Made:
        require_one(openclip=openclip, clip_vision=clip_vision)
        references, mask = pictures_and_mask(reference, reference_mask)
        weights = parse_weights(reference_weights, references.shape[0], "reference_weights")
        if clip_vision is None:
            tower = tower_of_openclip(openclip)
        else:
            tower = tower_of_clip_vision(clip_vision, size)
        warnings = (_one_size(tower, size),) if size and not tower.any_size else ()
        shown = grayed(references, mask)
        if match == PATCHES:
            patches = tower.reference_patches(shown, mask, weights)
            energy = PatchSimilarity(tower.patches, tower.preprocessing, patches)
            return Made(energy, warnings=warnings)
        targets = tower.embeddings(shown, mask)
        energy = ImageSimilarity(tower.whole, tower.preprocessing, targets, weights)
        return Made(energy, warnings=warnings)


NODES = [ZMagicImageSimilarity]


def _one_size(tower: SimilarityTower, size: int) -> str:
    """Make the sentence about a size that has no effect."""
    own = tower.preprocessing.input_size[0]
    return (
        f"set 'size' to 0: {size} has no effect.\n{tower.name} looks at pictures of {own} pixels "
        "only, unlike DINO and SigLIP 2"
    )
