"""The nodes of segmentation: the loader of segmenters, and the energy that asks for classes."""

from pathlib import Path

from comfy_api.latest import io
from torch import Tensor

from ..guidance.energies import Segmentation
from ..guidance.energies.segmentation import COMPARED, DISTANCES
from ..guidance.errors import advised
from ..guidance.pictures.class_scores import ClassScores
from ..guidance.pictures.label_maps import LabelMap
from ..host.image_networks import (
    SEGMENTER_SOURCE,
    SEGMENTERS,
    USUAL_SEGMENTER,
    ImageNetwork,
    example,
    load_network,
    outputs_for,
)
from ..host.model_files import find_file, list_files, offered
from . import sockets
from .bases import EnergyNode, LoaderNode, Made
from .condition_inputs import REFERENCE_BATCH
from .network_inputs import input_options, network_inputs
from .parsing.classes import parse_class_weights, parse_mask_classes
from .parsing.colors import parse_palette
from .picture_inputs import (
    grayed,
    masks,
    pictures_and_mask,
    reference_mask_input,
    refuse_mask_alone,
)

__all__ = ["NODES"]

# Side of the pictures for a parser that takes any size: that of the face parsers.
FREE_SIZE = 512

PHOTOGRAPH, COLOR_MAP, INDEX_MAP = "photograph", "color map", "index map"

# What to do about targets that ask for nothing, or for what is no class.
OTHER_COLORS = (
    "Paint in these, write the map's own into 'colors', or choose 'photograph' at 'target_is' if "
    "it is one"
)
OTHER_MAPS = "Choose 'color map' at 'target_is' if it is one, or 'photograph' to have it parsed"

# Slots for masks: segmenters have 150 classes at most, targets name a few.
MOST_MASKS = 32


class ZMagicLoadSegmenter(LoaderNode):
    """Load a network that gives each pixel scores of classes."""

    @classmethod
    def schema(cls) -> io.Schema:
        options = offered(list_files(SEGMENTERS), [USUAL_SEGMENTER])
        return io.Schema(
            node_id="ZMagicLoadSegmenter",
            display_name="Load Segmenter",
            description=(
                "Loads a parser or semantic segmenter from an ONNX file, such as a BiSeNet face "
                "parser, for the Segmentation Energy."
            ),
            search_aliases=[
                "face parsing",
                "BiSeNet",
                "semantic segmentation",
                "parser",
                "Z-Magic",
            ],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=options,
                    default=next(o for o in options if o.startswith(USUAL_SEGMENTER)),
                    tooltip=(
                        "ONNX file in models/onnx (models/insightface and models/detection are "
                        "searched too). The face parser that the help page recommends is named "
                        "where it is not installed, too."
                    ),
                ),
                *network_inputs(FREE_SIZE),
                io.String.Input(
                    "output",
                    default="",
                    advanced=True,
                    tooltip=(
                        "The output that holds the map of class scores, by name or by number from "
                        "0. Empty: the first."
                    ),
                ),
            ],
            outputs=[
                sockets.Segmenter.Output(
                    display_name="segmenter", tooltip="For the Segmentation Energy."
                )
            ],
        )

    @classmethod
    def find(cls, model_name: str) -> Path:
        return find_file(SEGMENTERS, model_name, SEGMENTER_SOURCE)

    @classmethod
    def load(cls, path: Path, output: str, **preprocessing) -> ImageNetwork:
        options = input_options(**preprocessing, free_size=FREE_SIZE)
        segmenter = load_network(path, options, output)
        shape = list(example(segmenter)[0].shape)
        if len(shape) != 4:
            raise ValueError(
                f"output '{segmenter.module.outputs[0]}' of {path.name} has the shape {shape}, "
                "expected a map of class scores [batch, classes, height, width]; choose another "
                "'output' or another file"
            )
        return segmenter


class ZMagicSegmentation(EnergyNode):
    """Pull the picture's layout towards a target."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicSegmentation",
            display_name="Segmentation Energy",
            description=(
                "Pulls the picture's layout towards a target: what a segmenter sees where. The "
                "target is a photograph to be parsed, a painted label map, or masks of classes."
            ),
            search_aliases=[
                "face parsing",
                "semantic map",
                "label map",
                "layout",
                "region",
                "regional",
                "mask",
            ],
            inputs=[
                sockets.Segmenter.Input(
                    "segmenter", tooltip="The network that parses: Load Segmenter."
                ),
                io.Image.Input(
                    "target_image",
                    optional=True,
                    tooltip=(
                        "What should be where, in one of the forms of 'target_is', scaled to "
                        f"fill the picture. {REFERENCE_BATCH} Connect this or masks."
                    ),
                ),
                io.Combo.Input(
                    "target_is",
                    options=[PHOTOGRAPH, COLOR_MAP, INDEX_MAP],
                    default=PHOTOGRAPH,
                    tooltip=(
                        "photograph: the segmenter parses it, and the picture gets its layout. "
                        "color map: painted in the classes' colors; index map: gray levels 0, 1, "
                        "2 and so on are their numbers. Other colors, and 255, leave the class "
                        "free."
                    ),
                ),
                io.Autogrow.Input(
                    "masks",
                    optional=True,
                    template=io.Autogrow.TemplatePrefix(
                        io.Mask.Input(
                            "mask",
                            tooltip=(
                                "Where one class should be: white. 'classes' says which. A new "
                                "slot appears when one is used."
                            ),
                        ),
                        prefix="mask",
                        min=0,
                        max=MOST_MASKS,
                    ),
                    tooltip=(
                        "Instead of a target image: one mask for each class that matters. Where"
                        " all are black, any class will do; where they overlap, each has its "
                        "share."
                    ),
                ),
                io.String.Input(
                    "classes",
                    default="",
                    placeholder="17 hair, 1 skin, 10 nose",
                    tooltip=(
                        "With masks: the number of each mask's class, in the masks' order, "
                        "separated by commas. Words after a number are remarks."
                    ),
                ),
                io.String.Input(
                    "colors",
                    default="",
                    placeholder="#000000 #cc0000 #00ffff",
                    advanced=True,
                    tooltip=(
                        "For a color map: the hexadecimal colors of classes 0, 1, 2, ... Empty: "
                        "the 19 face classes in the colors of CelebAMask-HQ, see the help page."
                    ),
                ),
                io.String.Input(
                    "class_weights",
                    default="",
                    placeholder="17:2, 1:0.5",
                    advanced=True,
                    tooltip=(
                        "How much pixels of a class count, as class:weight; 1 for classes that "
                        "are not named, 0 leaves a class free. Small parts such as eyes and lips "
                        "deserve more. Empty: every pixel counts the same."
                    ),
                ),
                io.Combo.Input(
                    "distance",
                    options=list(DISTANCES),
                    default=DISTANCES[0],
                    advanced=True,
                    tooltip=(
                        "cross entropy: pulls hardest where the segmenter is surest of another "
                        "class. squared error: pulls little there."
                    ),
                ),
                io.Combo.Input(
                    "compare",
                    options=list(COMPARED),
                    default=COMPARED[0],
                    advanced=True,
                    tooltip=(
                        "probabilities of classes; or logits, the raw scores, as in the Z-Magic "
                        "paper: for a photograph and squared error only."
                    ),
                ),
                reference_mask_input("target_image"),
            ],
        )

    @classmethod
    def energy(
        cls,
        segmenter: ImageNetwork,
        target_is: str,
        classes: str,
        colors: str,
        class_weights: str,
        distance: str,
        compare: str,
        target_image: Tensor | None = None,
        masks: io.Autogrow.Type | None = None,
        reference_mask: Tensor | None = None,
    ) -> Made:
        connected = [mask for mask in (masks or {}).values() if mask is not None]
        if (target_image is None) == (not connected):
            got = "neither" if target_image is None else "both"
            raise ValueError(f"expected a picture at 'target_image' or masks at 'masks', got {got}")
        if compare == "logits" and (connected or target_is != PHOTOGRAPH):
            raise ValueError(
                "'compare' is logits, which only a photograph has, expected "
                "'probabilities' for masks and label maps"
            )
        scores = ClassScores.inferred(example(segmenter)[0])
        weights = parse_class_weights(class_weights, scores.classes)
        if connected:
            numbers = parse_mask_classes(classes, len(connected), scores.classes)
            refuse_mask_alone(reference_mask, "target_image")
            target = LabelMap.from_masks(_masks(connected), numbers, scores.classes)
        elif target_is == COLOR_MAP:
            palette = parse_palette(colors, scores.classes)
            images, counts = pictures_and_mask(target_image, reference_mask, "target_image")
            seen = grayed(images, counts)
            with advised(OTHER_COLORS):
                target = LabelMap.from_colors(seen, palette, scores.classes, counts)
        else:
            images, counts = pictures_and_mask(target_image, reference_mask, "target_image")
            if target_is == PHOTOGRAPH:
                target = _parsed(segmenter, scores, grayed(images, counts), compare).masked(counts)
            else:
                with advised(OTHER_MAPS):
                    target = LabelMap.from_gray(images, scores.classes, counts)
        return Made(Segmentation(segmenter, scores, target, distance, compare, weights))


NODES = [ZMagicLoadSegmenter, ZMagicSegmentation]


def _parsed(
    segmenter: ImageNetwork, scores: ClassScores, photographs: Tensor, compare: str
) -> LabelMap:
    """Parse photographs ``[R, 3, h, w]``: the target is what the segmenter sees in them."""
    maps = outputs_for(segmenter, photographs)
    values = scores.complete(maps) if compare == "logits" else scores.probabilities(maps)
    aspect = photographs.shape[-1] / photographs.shape[-2]
    return LabelMap(values, values.new_ones(len(values), 1, *values.shape[-2:]), aspect)


def _masks(connected: list[Tensor]) -> list[Tensor]:
    """Check the MASKs at 'masks' and return each as ``[B, h, w]``.

    Raises:
        ValueError: one is no mask, or all are black.
    """
    asked = [masks(mask, "masks") for mask in connected]
    if not any(mask.any() for mask in asked):
        raise ValueError(
            "no pixel of the target asks for a class: the 'masks' are black all over.\n"
            "Paint white where a class should be. Load Image's MASK shows what is transparent in "
            "a picture, which is nothing in most"
        )
    return asked
