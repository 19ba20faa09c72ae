"""Energy nodes that need no network: patterns of brightness, tiles, symmetry, sharpness."""

from comfy_api.latest import io
from torch import Tensor

from ..guidance.energies import BrightnessMap, Energy, Seamless, Sharpness, Symmetry
from ..guidance.energies.seamless import DIRECTIONS
from ..guidance.energies.symmetry import MIRRORS
from .bases import EnergyNode
from .condition_inputs import REFERENCE_BATCH
from .picture_inputs import pictures_and_mask, reference_mask_input

__all__ = ["NODES"]


class ZMagicBrightnessMap(EnergyNode):
    """Pull the picture's local brightness towards a map."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicBrightnessMap",
            display_name="Brightness Map Energy",
            description=(
                "Makes the picture dark and bright where a map is: a QR code that is read, a "
                "lettering or a face that shows from afar."
            ),
            search_aliases=[
                "QR code",
                "illusion",
                "hidden image",
                "optical illusion",
                "light and shadow",
                "brightness",
                "QR Monster",
                "logo",
            ],
            inputs=[
                io.Image.Input(
                    "reference",
                    tooltip=(
                        "The map: black where the picture should be dark, white where it should"
                        " be bright, gray in between. Any size: scaled to fill the picture, "
                        f"what overhangs is cut. {REFERENCE_BATCH}"
                    ),
                ),
                io.Float.Input(
                    "blur",
                    default=0.01,
                    min=0.0,
                    max=0.5,
                    step=0.002,
                    round=False,
                    tooltip=(
                        "Blur through which the map is to be seen, as a fraction of the picture's "
                        "height. For a code a third of one of its squares; 0.03 to 0.06 for an "
                        "illusion that shows from afar. 0 compares every pixel."
                    ),
                ),
                io.Float.Input(
                    "dark",
                    default=0.25,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=False,
                    tooltip=(
                        "Brightness that black asks for, 0 to 1; what is darker is left alone. "
                        "Nearer to 'bright' the map shows less."
                    ),
                ),
                io.Float.Input(
                    "bright",
                    default=0.75,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=False,
                    tooltip=(
                        "Brightness that white asks for, 0 to 1, above 'dark'; what is brighter is "
                        "left alone."
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
        dark: float,
        bright: float,
        reference_mask: Tensor | None = None,
    ) -> Energy:
        if not dark < bright:
            raise ValueError(f"expected 'dark' below 'bright', got {dark:g} and {bright:g}")
        wanted, mask = pictures_and_mask(reference, reference_mask)
        return BrightnessMap(wanted, blur=blur, dark=dark, bright=bright, mask=mask)


class ZMagicSeamless(EnergyNode):
    """Make opposite edges of the picture meet."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicSeamless",
            display_name="Seamless Energy",
            description=(
                "Makes the picture a tile: what goes out at one edge comes in at the opposite one, "
                "in colors and in shades. With any model."
            ),
            search_aliases=[
                "tile",
                "tileable",
                "tiling",
                "seamless texture",
                "seamless tile",
                "pattern",
                "panorama 360",
                "wrap around",
            ],
            inputs=[
                io.Combo.Input(
                    "direction",
                    options=list(DIRECTIONS),
                    default="both",
                    tooltip=(
                        "Which edges meet. both: a tile for a plane. left and right: a strip, or "
                        "a panorama of 360 degrees."
                    ),
                ),
            ],
        )

    @classmethod
    def energy(cls, direction: str) -> Energy:
        return Seamless(direction)


class ZMagicSymmetry(EnergyNode):
    """Pull the picture towards its mirror image."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicSymmetry",
            display_name="Symmetry Energy",
            description=(
                "Pulls the picture towards its own mirror image: faces from the front, masks, "
                "buildings, patterns, playing cards."
            ),
            search_aliases=["symmetric", "mirror", "reflection", "kaleidoscope", "pattern"],
            inputs=[
                io.Combo.Input(
                    "mirror",
                    options=list(MIRRORS),
                    default="left and right",
                    tooltip=(
                        "What should be alike. both: left and right, and top and bottom. half "
                        "turn: the picture turned upside down, as a playing card."
                    ),
                ),
                io.Float.Input(
                    "blur",
                    default=0.01,
                    min=0.0,
                    max=0.5,
                    step=0.005,
                    round=False,
                    tooltip=(
                        "Blur through which the halves are compared, as a fraction of the "
                        "picture's height. 0 compares every pixel, 0.01 leaves fine detail free, "
                        "0.05 asks for the same masses of color and light only."
                    ),
                ),
            ],
        )

    @classmethod
    def energy(cls, mirror: str, blur: float) -> Energy:
        return Symmetry(mirror, blur)


class ZMagicSharpness(EnergyNode):
    """Pull the picture's fine detail towards an amount."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicSharpness",
            display_name="Sharpness Energy",
            description=(
                "Makes the picture, or a part of it, as sharp or as soft as you say: crisp "
                "detail, or a background out of focus."
            ),
            search_aliases=[
                "sharp",
                "sharpen",
                "blur",
                "out of focus",
                "depth of field",
                "bokeh",
                "soft focus",
                "detail",
            ],
            inputs=[
                io.Float.Input(
                    "sharpness",
                    default=-0.2,
                    min=-1.0,
                    max=1.0,
                    step=0.05,
                    round=False,
                    tooltip=(
                        "How strong fine detail is beside coarser detail. -1: out of focus; "
                        "-0.5 to -0.2: most photographs; 0: crisp all over; 1: noise."
                    ),
                ),
                io.Float.Input(
                    "detail",
                    default=0.002,
                    min=0.0005,
                    max=0.05,
                    step=0.0005,
                    round=False,
                    tooltip=(
                        "What counts as fine, as a fraction of the picture's height; at least one "
                        "pixel. 0.002 is 2 pixels of 1024. Larger values make or take away coarser "
                        "texture."
                    ),
                ),
            ],
        )

    @classmethod
    def energy(cls, sharpness: float, detail: float) -> Energy:
        return Sharpness(sharpness, detail)


NODES = [ZMagicBrightnessMap, ZMagicSeamless, ZMagicSymmetry, ZMagicSharpness]
