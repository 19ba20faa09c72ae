"""Segmentation: the loader of parsers, and the energy that asks for classes in their places."""

from comfy_api.latest import io
from torch import Tensor

from ..guidance.energies import Segmentation
from ..guidance.energies.class_names import parse_class_weights, parse_classes, parse_palette
from ..guidance.energies.segmentation import COMPARED, DISTANCES
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
from ..host.model_files import find_file, list_files, offered, usable_name
from ..host.networks import stamp_of
from .condition_inputs import (
    CATEGORY,
    REFERENCE_BATCH,
    SEARCH_ALIASES,
    appended,
    condition_inputs,
    conditions_output,
    greyed,
    masks,
    pictures_and_mask,
    reference_mask_input,
)
from .network_inputs import input_options, network_inputs
from .picture_inputs import refuse_mask_alone
from .sockets import Segmenter
from .titles import title

__all__ = ["NODES"]

# Side of the pictures for a parser that takes any size: that of the face parsers.
FREE_SIZE = 512

PHOTOGRAPH, COLOR_MAP, INDEX_MAP = "photograph", "colour map", "index map"

# Slots for masks: segmenters have 150 classes at most, targets name a few.
MOST_MASKS = 32


class ZMagicLoadSegmenter(io.ComfyNode):
    """A network that says what each pixel shows."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        options = offered(list_files(SEGMENTERS), [USUAL_SEGMENTER])
        return io.Schema(
            node_id="ZMagicLoadSegmenter",
            display_name="Load Segmenter",
            category="Z-Magic/models",
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
                Segmenter.Output(display_name="segmenter", tooltip="For the Segmentation Energy.")
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, model_name: str = "") -> bool | str:
        return usable_name(model_name, "model_name")

    @classmethod
    def fingerprint_inputs(cls, model_name: str = "", **_) -> tuple:
        return stamp_of(lambda: find_file(SEGMENTERS, model_name, "", SEGMENTER_SOURCE), model_name)

    @classmethod
    def execute(cls, model_name: str, output: str, **preprocessing) -> io.NodeOutput:
        owner = title(cls)
        path = find_file(SEGMENTERS, model_name, owner, SEGMENTER_SOURCE)
        try:
            options = input_options(**preprocessing, free_size=FREE_SIZE)
            segmenter = load_network(path, options, output)
            shape = list(example(segmenter)[0].shape)
            if len(shape) != 4:
                raise ValueError(
                    f"output '{segmenter.module.outputs[0]}' of {path.name} has the shape {shape}, "
                    "expected a map of class scores [batch, classes, height, width]; choose "
                    "another 'output' or another file"
                )
        except ValueError as error:
            raise ValueError(f"{owner}: {error}") from error
        return io.NodeOutput(segmenter)


class ZMagicSegmentation(io.ComfyNode):
    """What is where in the picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicSegmentation",
            display_name="Segmentation Energy",
            category=CATEGORY,
            description=(
                "Pulls the picture's layout towards a target: what a segmenter sees where. The "
                "target is a photograph to be parsed, a painted label map, or masks of classes."
            ),
            search_aliases=[
                *SEARCH_ALIASES,
                "face parsing",
                "semantic map",
                "label map",
                "layout",
                "regional",
            ],
            inputs=[
                Segmenter.Input("segmenter", tooltip="The network that parses: Load Segmenter."),
                io.Image.Input(
                    "target_image",
                    optional=True,
                    tooltip=(
                        "What should be where, in one of the forms of 'target_is'. Any size: "
                        f"scaled to fill the picture. {REFERENCE_BATCH} Connect this or masks."
                    ),
                ),
                io.Combo.Input(
                    "target_is",
                    options=[PHOTOGRAPH, COLOR_MAP, INDEX_MAP],
                    default=PHOTOGRAPH,
                    tooltip=(
                        "photograph: the segmenter parses it, and the picture gets its layout. "
                        "colour map: painted in the classes' colours; other colours leave the "
                        "class free. index map: grey levels 0, 1, 2, ... of 255 are the numbers "
                        "of the classes, 255 leaves the class free."
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
                        "Instead of a target image: one mask for each class that matters. Where "
                        "all are black, any class will do."
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
                        "For a colour map: the hexadecimal colours of classes 0, 1, 2, ... Empty: "
                        "the 19 face classes in the colours of CelebAMask-HQ, see the help page."
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
                        "cross entropy: pulls hardest where the segmenter is surest of something "
                        "else. squared error: leaves hopeless pixels alone."
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
                *condition_inputs(),
                reference_mask_input("target_image"),
            ],
            outputs=[conditions_output()],
        )

    @classmethod
    def execute(
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
        **common,
    ) -> io.NodeOutput:
        owner = "Segmentation Energy"
        connected = [mask for mask in (masks or {}).values() if mask is not None]
        if (target_image is None) == (not connected):
            got = "neither" if target_image is None else "both"
            raise ValueError(
                f"{owner}: expected a picture at 'target_image' or masks at 'masks', got {got}"
            )
        if compare == "logits" and (connected or target_is != PHOTOGRAPH):
            raise ValueError(
                f"{owner}: 'compare' is logits, which only a photograph has, expected "
                "'probabilities' for masks and label maps"
            )
        scores = ClassScores.judged(example(segmenter)[0])
        try:
            weights = parse_class_weights(class_weights, scores.classes)
            numbers = parse_classes(classes) if connected else []
            palette = None
            if not connected and target_is == COLOR_MAP:
                palette = parse_palette(colors, scores.classes)
        except ValueError as error:
            raise ValueError(f"{owner}: {error}") from None
        if connected:
            refuse_mask_alone(reference_mask, owner, "target_image")
            target = LabelMap.from_masks(_masks(connected, owner), numbers, scores.classes, owner)
        else:
            images, counts = pictures_and_mask(target_image, reference_mask, owner, "target_image")
            seen = greyed(images, counts)
            if target_is == PHOTOGRAPH:
                target = _parsed(segmenter, scores, seen, compare, owner).masked(counts)
            elif target_is == COLOR_MAP:
                target = LabelMap.from_colors(seen, palette, scores.classes, owner, counts)
            else:
                target = LabelMap.from_gray(images, scores.classes, owner, counts)
        energy = Segmentation(segmenter, scores, target, distance, compare, weights)
        return appended(owner, energy, **common)


NODES = [ZMagicLoadSegmenter, ZMagicSegmentation]


def _parsed(
    segmenter: ImageNetwork, scores: ClassScores, photographs: Tensor, compare: str, owner: str
) -> LabelMap:
    """What the segmenter sees in photographs, as the target."""
    maps = outputs_for(segmenter, photographs)
    values = scores.complete(maps) if compare == "logits" else scores.probabilities(maps)
    aspect = photographs.shape[-1] / photographs.shape[-2]
    return LabelMap(values, values.new_ones(len(values), 1, *values.shape[-2:]), owner, aspect)


def _masks(connected: list[Tensor], owner: str) -> list[Tensor]:
    """The MASKs at 'masks' as ``[B, h, w]`` each."""
    return [masks(mask, owner, "masks") for mask in connected]
