"""One node per attribute: what the picture should be like, appended to a chain of conditions."""

from comfy_api.latest import io
from torch import Tensor

from ..guidance.conditions import Condition
from ..guidance.energies import ColorPalette, ReferenceImage, Sketch
from ..guidance.energies.color_palette import parse_colors
from ..guidance.energies.references import ordinary
from .sockets import Conditions

__all__ = ["NODES"]

CATEGORY = "Z-Magic/energies"

# What users of other tools call guidance by an energy.
SEARCH_ALIASES = [
    "energy guidance",
    "loss guidance",
    "universal guidance",
    "training-free guidance",
    "FreeDoM",
    "Z-Magic",
]

# Slots of the combining node: the chains themselves may be of any length.
MOST_CHAINS = 32

# Batches of references are common to all energies that have one.
REFERENCE_BATCH = "One picture for all images, or one for each image of the batch."


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
                *_condition_inputs(),
            ],
            outputs=[_conditions_output()],
        )

    @classmethod
    def execute(
        cls,
        colors: str,
        lightness: float,
        weight: float,
        start: float,
        end: float,
        reference: Tensor | None = None,
        region: Tensor | None = None,
        conditions: tuple[Condition, ...] = (),
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
            energy = ColorPalette(_pictures(reference, owner), lightness=lightness)
        else:
            energy = ColorPalette(None, *_parsed(colors, owner), lightness=lightness)
        return _appended(owner, energy, weight, start, end, region, conditions)


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
                *_condition_inputs(),
            ],
            outputs=[_conditions_output()],
        )

    @classmethod
    def execute(
        cls,
        reference: Tensor,
        reference_is: str,
        line_width: float,
        weight: float,
        start: float,
        end: float,
        region: Tensor | None = None,
        conditions: tuple[Condition, ...] = (),
    ) -> io.NodeOutput:
        owner = "Sketch Energy"
        pictures = _pictures(reference, owner)
        energy = Sketch(pictures, drawing=reference_is == "drawing", line_width=line_width)
        return _appended(owner, energy, weight, start, end, region, conditions)


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
                *_condition_inputs(),
            ],
            outputs=[_conditions_output()],
        )

    @classmethod
    def execute(
        cls,
        reference: Tensor,
        blur: float,
        weight: float,
        start: float,
        end: float,
        region: Tensor | None = None,
        conditions: tuple[Condition, ...] = (),
    ) -> io.NodeOutput:
        owner = "Reference Image Energy"
        energy = ReferenceImage(_pictures(reference, owner), blur=blur)
        return _appended(owner, energy, weight, start, end, region, conditions)


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
            outputs=[_conditions_output()],
        )

    @classmethod
    def execute(cls, chains: io.Autogrow.Type) -> io.NodeOutput:
        joined = [condition for chain in chains.values() for condition in chain or ()]
        # Chains may share their beginning; a dict keeps the first place of each condition.
        return io.NodeOutput(tuple(dict.fromkeys(joined)))


NODES = [ZMagicColorPalette, ZMagicSketch, ZMagicReferenceImage, ZMagicCombineConditions]


def _condition_inputs() -> list[io.Input]:
    """What every condition has beside its energy."""
    return [
        io.Float.Input(
            "weight",
            default=1.0,
            min=0.0,
            max=10.0,
            step=0.05,
            round=False,
            tooltip=(
                "How strongly this condition pulls compared with the others. 1 is neutral: equal "
                "weights pull equally, whatever the energies' sizes. 0 switches it off; 0.3 to 3 "
                "is a useful range. How far all of them go together is set at the sampler."
            ),
        ),
        io.Float.Input(
            "start",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            round=False,
            tooltip=(
                "When guidance by this condition begins, as a fraction of the sampling; 0 is its "
                "first step. Large shapes and colours are decided early."
            ),
        ),
        io.Float.Input(
            "end",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            round=False,
            tooltip=(
                "When guidance by this condition ends, as a fraction of the sampling; 1 is its "
                "last step. 0.8 leaves the last details to the model."
            ),
        ),
        io.Mask.Input(
            "region",
            optional=True,
            tooltip=(
                "Where the condition applies: white counts, black does not, grey in between. Any "
                "size. Not connected: the whole picture."
            ),
        ),
        Conditions.Input(
            "conditions",
            optional=True,
            tooltip="Conditions to which this one is appended. Not connected: it is the first.",
        ),
    ]


def _conditions_output() -> io.Output:
    return Conditions.Output(
        display_name="conditions",
        tooltip="The incoming conditions and this node's, for the next energy or the sampler.",
    )


def _appended(
    owner: str,
    energy: object,
    weight: float,
    start: float,
    end: float,
    region: Tensor | None,
    conditions: tuple[Condition, ...] | None,
) -> io.NodeOutput:
    """The incoming conditions followed by the one of node ``owner``.

    Raises:
        ValueError: the window is empty the wrong way round, or the region is not a mask.
    """
    if start > end:
        raise ValueError(
            f"{owner}: expected 'start' not after 'end', got start {start:g} and end {end:g}"
        )
    name = owner.removesuffix(" Energy")
    condition = Condition(name, energy, weight, start, end, _mask(region, owner))
    return io.NodeOutput((*(conditions or ()), condition))


def _pictures(image: Tensor, owner: str) -> Tensor:
    """An IMAGE ``[R, h, w, C]`` as RGB pictures ``[R, 3, h, w]``; alpha is left out.

    Raises:
        ValueError: ``image`` has another shape.
    """
    if image.ndim != 4 or image.shape[-1] < 3:
        raise ValueError(
            f"{owner}: 'reference' must be an RGB image [batch, height, width, 3], "
            f"got {list(image.shape)}"
        )
    return image[..., :3].movedim(-1, 1)


def _mask(region: Tensor | None, owner: str) -> Tensor | None:
    """A MASK ``[H, W]`` or ``[B, H, W]`` as an ordinary tensor ``[B, H, W]``.

    Raises:
        ValueError: ``region`` has another shape.
    """
    if region is None:
        return None
    if region.ndim not in (2, 3):
        raise ValueError(
            f"{owner}: 'region' must be a mask [batch, height, width], got {list(region.shape)}"
        )
    return ordinary(region if region.ndim == 3 else region[None])


def _parsed(colors: str, owner: str) -> tuple[Tensor, Tensor | None]:
    try:
        return parse_colors(colors)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None
