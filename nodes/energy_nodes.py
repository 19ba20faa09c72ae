"""Energies of the picture itself, without a network; and the node that joins conditions."""

from comfy_api.latest import io
from torch import Tensor

from ..guidance.energies import ColorPalette, ReferenceImage, Sketch
from ..guidance.energies.color_palette import parse_colors
from .condition_inputs import (
    CATEGORY,
    REFERENCE_BATCH,
    SEARCH_ALIASES,
    appended,
    condition_inputs,
    conditions_output,
    pictures_and_mask,
    reference_mask_input,
)
from .picture_inputs import refuse_mask_alone
from .sockets import Conditions

__all__ = ["NODES"]

# Slots of the combining node: the chains themselves may be of any length.
MOST_CHAINS = 32


class ZMagicColorPalette(io.ComfyNode):
    """Colours of the picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicColorPalette",
            display_name="Colour Palette Energy",
            category=CATEGORY,
            description=(
                "Pulls the picture's colours towards those of a reference picture or of a list of "
                "colours. Connect a reference or write colours."
            ),
            search_aliases=[*SEARCH_ALIASES, "color palette", "color transfer", "recolor"],
            inputs=[
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip=(
                        "Its colours, in their proportions, become the picture's; what it shows "
                        f"and where does not matter. Any size. {REFERENCE_BATCH}"
                    ),
                ),
                io.String.Input(
                    "colors",
                    default="",
                    placeholder="#264653, #2a9d8f, #e9c46a",
                    tooltip=(
                        "Hexadecimal colours separated by commas or spaces, used when no reference "
                        "is connected. The picture decides how much of each, unless every colour "
                        "has a proportion: #264653:3, #e9c46a:1. Empty: use the reference."
                    ),
                ),
                io.Float.Input(
                    "lightness",
                    default=0.5,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    round=False,
                    tooltip=(
                        "How much light and dark count against hue and saturation. 1 is true "
                        "perceptual distance (CIE Lab), 0 leaves light and shade entirely free; "
                        "0.5 keeps room for modelling and shadows."
                    ),
                ),
                *condition_inputs(),
                reference_mask_input("reference"),
            ],
            outputs=[conditions_output()],
        )

    @classmethod
    def execute(
        cls,
        colors: str,
        lightness: float,
        reference: Tensor | None = None,
        reference_mask: Tensor | None = None,
        **common,
    ) -> io.NodeOutput:
        owner = "Colour Palette Energy"
        if reference is not None and colors.strip():
            raise ValueError(
                f"{owner}: 'reference' and 'colors' are both given, expected one of them; "
                "disconnect the reference or empty 'colors'"
            )
        if reference is None and not colors.strip():
            raise ValueError(
                f"{owner}: expected a picture at 'reference' or hexadecimal colours such as "
                "'#264653, #2a9d8f' in 'colors', got neither"
            )
        if reference is not None:
            photographs, mask = pictures_and_mask(reference, reference_mask, owner)
            energy = ColorPalette(photographs, lightness=lightness, mask=mask)
        else:
            refuse_mask_alone(reference_mask, owner, "reference")
            energy = ColorPalette(None, *_parsed(colors, owner), lightness=lightness)
        return appended(owner, energy, **common)


class ZMagicSketch(io.ComfyNode):
    """Contours of the picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicSketch",
            display_name="Sketch Energy",
            category=CATEGORY,
            description=(
                "Pulls the picture's edges onto the lines of a drawing or the edges of a "
                "photograph, whatever the brightness and contrast of either."
            ),
            search_aliases=[*SEARCH_ALIASES, "edges", "line art", "scribble", "canny", "contour"],
            inputs=[
                io.Image.Input(
                    "reference",
                    tooltip=(
                        "The drawing or photograph whose lines the picture should follow. Any "
                        f"size: scaled to fill the picture. {REFERENCE_BATCH}"
                    ),
                ),
                io.Combo.Input(
                    "reference_is",
                    options=["photograph", "drawing"],
                    default="photograph",
                    tooltip=(
                        "photograph: its edges are the lines. drawing: lines on plain paper, dark "
                        "on light or light on dark, are the lines themselves."
                    ),
                ),
                io.Float.Input(
                    "line_width",
                    default=0.012,
                    min=0.002,
                    max=0.1,
                    step=0.001,
                    round=False,
                    tooltip=(
                        "Softness of the lines as a fraction of the picture's height. Larger "
                        "values follow the lines loosely and ignore detail; 0.012 is a good start, "
                        "0.03 suits a rough scribble."
                    ),
                ),
                *condition_inputs(),
                reference_mask_input("reference"),
            ],
            outputs=[conditions_output()],
        )

    @classmethod
    def execute(
        cls,
        reference: Tensor,
        reference_is: str,
        line_width: float,
        reference_mask: Tensor | None = None,
        **common,
    ) -> io.NodeOutput:
        owner = "Sketch Energy"
        lines, mask = pictures_and_mask(reference, reference_mask, owner)
        energy = Sketch(lines, drawing=reference_is == "drawing", line_width=line_width, mask=mask)
        return appended(owner, energy, **common)


class ZMagicReferenceImage(io.ComfyNode):
    """Low-level likeness of the picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicReferenceImage",
            display_name="Reference Image Energy",
            category=CATEGORY,
            description=(
                "Pulls the picture towards a reference seen through a blur: its composition, "
                "colours and light, with as much detail as the blur leaves."
            ),
            search_aliases=[*SEARCH_ALIASES, "image similarity", "img2img", "ILVR", "composition"],
            inputs=[
                io.Image.Input(
                    "reference",
                    tooltip=(
                        "The picture to resemble, place by place. Any size: scaled to fill the "
                        f"picture. {REFERENCE_BATCH}"
                    ),
                ),
                io.Float.Input(
                    "blur",
                    default=0.02,
                    min=0.0,
                    max=0.5,
                    step=0.005,
                    round=False,
                    tooltip=(
                        "Blur through which both are compared, as a fraction of the picture's "
                        "height. 0 compares every pixel, 0.02 leaves fine detail free, 0.1 "
                        "prescribes little more than the distribution of colour and light."
                    ),
                ),
                *condition_inputs(),
                reference_mask_input("reference"),
            ],
            outputs=[conditions_output()],
        )

    @classmethod
    def execute(
        cls,
        reference: Tensor,
        blur: float,
        reference_mask: Tensor | None = None,
        **common,
    ) -> io.NodeOutput:
        owner = "Reference Image Energy"
        photograph, mask = pictures_and_mask(reference, reference_mask, owner)
        energy = ReferenceImage(photograph, blur=blur, mask=mask)
        return appended(owner, energy, **common)


class ZMagicCombineConditions(io.ComfyNode):
    """Several chains of conditions as one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicCombineConditions",
            display_name="Combine Conditions",
            category=CATEGORY,
            description=(
                "Joins several chains of conditions into one, in the order of the slots. A "
                "condition that arrives twice counts once."
            ),
            search_aliases=[*SEARCH_ALIASES, "merge conditions", "join conditions"],
            inputs=[
                io.Autogrow.Input(
                    "chains",
                    template=io.Autogrow.TemplatePrefix(
                        Conditions.Input(
                            "conditions",
                            tooltip="A chain of conditions. A new slot appears when one is used.",
                        ),
                        prefix="conditions",
                        min=1,
                        max=MOST_CHAINS,
                    ),
                    tooltip="The chains to join; conditions of the first slot come first.",
                ),
            ],
            outputs=[conditions_output()],
        )

    @classmethod
    def execute(cls, chains: io.Autogrow.Type) -> io.NodeOutput:
        joined = [condition for chain in chains.values() for condition in chain or ()]
        # Chains may share their beginning; a dict keeps the first place of each condition.
        return io.NodeOutput(tuple(dict.fromkeys(joined)))


NODES = [ZMagicColorPalette, ZMagicSketch, ZMagicReferenceImage, ZMagicCombineConditions]


def _parsed(colors: str, owner: str) -> tuple[Tensor, Tensor | None]:
    try:
        return parse_colors(colors)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None
