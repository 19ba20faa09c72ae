"""Energy nodes that compare features of OpenCLIP's towers: text and style."""

import torch
from comfy_api.latest import io
from torch import Tensor

from ..guidance.energies import Style, Text
from ..guidance.energies.style import mean_grams
from ..guidance.errors import advised, named
from ..guidance.pictures.preprocessing import Preprocessing
from ..guidance.pictures.regions import reference_view
from ..guidance.wording import quoted
from ..host.image_networks import ImageNetwork
from ..host.networks import Network
from ..host.openclip import OpenClip
from . import sockets
from .alternatives import require_one
from .bases import EnergyNode, Made
from .parsing.numbers import parse_blocks, parse_weights
from .parsing.prompts import parse_prompts
from .picture_inputs import SEVERAL_TOGETHER, grayed, pictures_and_mask, reference_mask_input

__all__ = ["AT_LOADER", "NODES", "cut"]

# Views of one step: each costs a pass of the image tower and its memory.
MOST_CROPS = 32

# What to do about prompts that a tower cannot encode.
AT_LOADER = "Both are choices of Load OpenCLIP"


class ZMagicText(EnergyNode):
    """Pull the picture towards prompts."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicText",
            display_name="Text Energy",
            description=(
                "Pulls the picture towards prompts, and away from others, as OpenCLIP understands "
                "them. Works with models that know no text as well."
            ),
            search_aliases=["CLIP guidance", "prompt", "text guidance"],
            inputs=[
                sockets.OpenClip.Input("openclip", tooltip="From Load OpenCLIP."),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    placeholder="a watercolor painting\n0.5 :: morning light",
                    tooltip=(
                        "What the picture should show: one prompt a line. A number and '::' in "
                        "front of a line weigh it against the others, 1 without them."
                    ),
                ),
                io.String.Input(
                    "negative_prompt",
                    default="",
                    multiline=True,
                    placeholder="a cartoon",
                    tooltip=(
                        "What the picture should not show, written in the same way. It is pushed "
                        "away from, as strongly as a prompt of the same weight pulls."
                    ),
                ),
                io.Int.Input(
                    "crops",
                    default=1,
                    min=1,
                    max=MOST_CROPS,
                    tooltip=(
                        "Views of the picture that are compared with the prompts in each step: 1 "
                        "is the whole picture, more add random crops in perspective, which the "
                        "model cannot satisfy by noise. Each costs memory and time; 4 to 8 is "
                        "plenty."
                    ),
                ),
                io.Float.Input(
                    "smallest_crop",
                    default=0.6,
                    min=0.1,
                    max=1.0,
                    step=0.05,
                    round=False,
                    advanced=True,
                    tooltip=(
                        "Side of the smallest random crop, as a fraction of the whole view. Small "
                        "crops repeat the subject all over the picture. Used when crops > 1."
                    ),
                ),
            ],
        )

    @classmethod
    def energy(
        cls,
        openclip: OpenClip,
        prompt: str,
        negative_prompt: str,
        crops: int,
        smallest_crop: float,
    ) -> Made:
        with named("'prompt'"):
            positive = parse_prompts(prompt)
        with named("'negative_prompt'"):
            negative = parse_prompts(negative_prompt)
        if not positive + negative:
            raise ValueError("expected a line of text in 'prompt' or 'negative_prompt', got none")
        if openclip.texts is None:
            raise ValueError(
                "'openclip' has no text tower; connect the CLIP that belongs to the "
                "image tower at 'clip' of Load OpenCLIP"
            )
        texts = [text for text, _ in positive + negative]
        with advised(AT_LOADER):
            targets = openclip.texts(texts)
            warnings = [cut(text, end) for text in texts if (end := openclip.texts.unread(text))]
        weights = [weight for _, weight in positive] + [-weight for _, weight in negative]
        energy = Text(
            openclip.image,
            openclip.preprocessing,
            targets,
            torch.tensor(weights),
            crops,
            smallest_crop,
            warnings,
        )
        return Made(energy, warnings=tuple(warnings))


class ZMagicStyle(EnergyNode):
    """Pull the picture's textures and colors towards those of style pictures."""

    OWN_LAYOUT = "reference"

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicStyle",
            display_name="Style Energy",
            description=(
                "Pulls the picture's textures, brushwork and colors towards those of style "
                "pictures, whatever they show."
            ),
            search_aliases=["style transfer", "Gram matrix", "texture", "VGG", "IPAdapter"],
            inputs=[
                io.Image.Input(
                    "reference",
                    tooltip=f"The style. Any size; {SEVERAL_TOGETHER}",
                ),
                sockets.OpenClip.Input(
                    "openclip",
                    optional=True,
                    tooltip="From Load OpenCLIP. Connect this or 'network'.",
                ),
                sockets.OnnxNetwork.Input(
                    "network",
                    optional=True,
                    tooltip=(
                        "A convolutional network from Load ONNX Network instead of OpenCLIP, such "
                        "as a VGG."
                    ),
                ),
                io.String.Input(
                    "blocks",
                    default="3",
                    tooltip=(
                        "After which blocks of the network style is compared, separated by "
                        "commas, 1 is the first; later ones see larger forms. OpenCLIP: blocks "
                        "of its image tower; FreeDoM and Z-Magic use 3. ONNX: activations "
                        "(ReLU) of the file."
                    ),
                ),
                io.String.Input(
                    "style_weights",
                    default="",
                    placeholder="2, 1",
                    tooltip=(
                        "One number for each style picture, separated by commas. Empty: all count "
                        "the same."
                    ),
                ),
                reference_mask_input("reference"),
            ],
        )

    @classmethod
    def energy(
        cls,
        reference: Tensor,
        blocks: str,
        style_weights: str,
        openclip: OpenClip | None = None,
        network: ImageNetwork | None = None,
        reference_mask: Tensor | None = None,
    ) -> Made:
        require_one(openclip=openclip, network=network)
        styles, mask = pictures_and_mask(reference, reference_mask)
        weights = parse_weights(style_weights, styles.shape[0], "style_weights")
        numbers = parse_blocks(blocks)
        if openclip is not None:
            features = openclip.after_blocks(numbers)
            preprocessing = openclip.preprocessing
        else:
            features = _after_activations(network, numbers)
            preprocessing = network.preprocessing
        targets = features.reference(
            lambda x, w, m=None: _targets(features, preprocessing, x, w, m),
            grayed(styles, mask),
            weights,
            *(() if mask is None else (mask,)),
            key=preprocessing,
        )
        return Made(Style(features, preprocessing, targets))


NODES = [ZMagicText, ZMagicStyle]


def cut(text: str, end: str) -> str:
    """Make the sentence about a prompt whose end is not read."""
    return (
        f"the prompt {quoted(text, 40)} is longer than the text tower reads: it does not see "
        f"{quoted(end, 200)}.\nShorten it, or put that on a line of its own"
    )


def _targets(
    features: Network,
    preprocessing: Preprocessing,
    styles: Tensor,
    weights: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, ...]:
    """Compute the Gram matrices of the style pictures, for each block that ``features`` has."""
    views, counts = reference_view(styles, mask, preprocessing)
    return mean_grams(features(views), weights, counts)


def _after_activations(network: ImageNetwork, numbers: tuple[int, ...]) -> Network:
    """The ONNX network up to its features after the given activations, counted from 1.

    Raises:
        ValueError: the file has fewer.
    """
    names = network.activations()
    if not all(1 <= number <= len(names) for number in numbers):
        raise ValueError(
            f"expected blocks from 1 to {len(names)}, the activations of {network.path.name}, "
            f"got {', '.join(map(str, numbers))}"
        )
    return network.returning([names[number - 1] for number in numbers]).network
