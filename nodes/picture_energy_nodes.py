"""Energy nodes that need no network: colors, edges, low-level likeness."""

from comfy_api.latest import io
from torch import Tensor

from ..guidance.energies import ColorPalette, Energy, ReferenceImage, Sketch
from .bases import EnergyNode
from .condition_inputs import REFERENCE_BATCH
from .parsing.colors import parse_colors
from .picture_inputs import pictures_and_mask, reference_mask_input, refuse_mask_alone

__all__ = ["NODES"]


class ZMagicColorPalette(EnergyNode):
    """Pull the picture's colors towards a palette."""

    OWN_LAYOUT = "reference"

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicColorPalette",
            display_name="Color Palette Energy",
            description=(
                "Pulls the picture's colors towards those of a reference picture or of a list of "
                "colors. Connect a reference or write colors."
            ),
            search_aliases=[
                "color palette",
                "color transfer",
                "color match",
                "recolor",
                "brand colors",
                "hex color",
            ],
            inputs=[
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip=(
                        "Its colors, in their proportions, become the picture's; what it shows "
                        f"and where does not matter. Any size. {REFERENCE_BATCH}"
                    ),
                ),
                io.String.Input(
                    "colors",
                    default="",
                    placeholder="#264653, #2a9d8f, #e9c46a",
                    tooltip=(
                        "Hexadecimal colors separated by commas or spaces, used when no reference "
                        "is connected. The picture decides how much of each, unless every color "
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
                        "How much light and dark count against hue and saturation. 1 is the "
                        "perceptual distance of CIE Lab, 0 leaves light and shade entirely free; "
                        "0.5 keeps room for shadows."
                    ),
                ),
                reference_mask_input("reference"),
            ],
        )

    @classmethod
    def energy(
        cls,
        colors: str,
        lightness: float,
        reference: Tensor | None = None,
        reference_mask: Tensor | None = None,
    ) -> Energy:
        if reference is not None and colors.strip():
            raise ValueError(
                "'reference' and 'colors' are both given, expected one of them; "
                "disconnect the reference or empty 'colors'"
            )
        if reference is None and not colors.strip():
            raise ValueError(
                "expected a picture at 'reference' or hexadecimal colors such as "
                "'#264653, #2a9d8f' in 'colors', got neither"
            )
        if reference is not None:
            photographs, mask = pictures_and_mask(reference, reference_mask)
            return ColorPalette(photographs, lightness=lightness, mask=mask)
        refuse_mask_alone(reference_mask, "reference")
        return ColorPalette(None, *parse_colors(colors), lightness=lightness)


class ZMagicSketch(EnergyNode):
    """Pull the picture's edges onto lines."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicSketch",
            display_name="Sketch Energy",
            description=(
                "Pulls the picture's edges onto the lines of a drawing or the edges of a "
                "photograph, whatever the brightness and contrast of either."
            ),
            search_aliases=["edges", "line art", "scribble", "canny", "contour", "logo"],
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
                reference_mask_input("reference"),
            ],
        )

    @classmethod
    def energy(
        cls,
        reference: Tensor,
        reference_is: str,
        line_width: float,
        reference_mask: Tensor | None = None,
    ) -> Energy:
        lines, mask = pictures_and_mask(reference, reference_mask)
        return Sketch(lines, drawing=reference_is == "drawing", line_width=line_width, mask=mask)


class ZMagicReferenceImage(EnergyNode):
    """Pull the picture towards a reference, place by place."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicReferenceImage",
            display_name="Reference Image Energy",
            description=(
                "Pulls the picture towards a reference seen through a blur: its composition, "
                "colors and light, with as much detail as the blur leaves."
            ),
            search_aliases=["image similarity", "img2img", "ILVR", "composition", "logo"],
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
                        "prescribes little more than the distribution of color and light."
                    ),
                ),
                reference_mask_input("reference"),
            ],
        )

    @classmethod
    def energy(
        cls,
        reference: Tensor,
        blur: float,
        reference_mask: Tensor | None = None,
    ) -> Energy:
        photograph, mask = pictures_and_mask(reference, reference_mask)
        return ReferenceImage(photograph, blur=blur, mask=mask)


NODES = [ZMagicColorPalette, ZMagicSketch, ZMagicReferenceImage]
