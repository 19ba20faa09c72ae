"""Energies that compare what OpenCLIP's towers see: text, style, image similarity."""

import torch
from comfy_api.latest import io
from torch import Tensor

from ..guidance.energies import ImageSimilarity, Style, Text
from ..guidance.energies.prompts import parse_prompts
from ..guidance.energies.style import mean_grams
from ..guidance.numbers import weight_in
from ..guidance.pictures.preprocessing import Preprocessing
from ..guidance.pictures.regions import reference_view
from ..guidance.wording import quoted
from ..host.image_networks import ImageNetwork
from ..host.networks import Network
from ..host.openclip import OpenClip as LoadedOpenClip
from .condition_inputs import (
    CATEGORY,
    SEARCH_ALIASES,
    appended,
    condition_inputs,
    conditions_output,
    greyed,
    pictures_and_mask,
    reference_mask_input,
)
from .notices import notify
from .sockets import OnnxNetwork, OpenClip

__all__ = ["NODES"]

# Batches of references mean something else here than in the energies of single pictures.
SEVERAL_REFERENCES = "several pictures in a batch count together, for every image."

# Views of one step: each costs a pass of the image tower and its memory.
MOST_CROPS = 32

# Digits of the number of a block.
LONGEST_NUMBER = 6


class ZMagicText(io.ComfyNode):
    """What the picture shows, in words."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicText",
            display_name="Text Energy",
            category=CATEGORY,
            description=(
                "Pulls the picture towards prompts, and away from others, as OpenCLIP understands "
                "them. Works with models that know no text as well."
            ),
            search_aliases=[*SEARCH_ALIASES, "CLIP guidance", "prompt", "text guidance"],
            inputs=[
                OpenClip.Input("openclip", tooltip="From Load OpenCLIP."),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    placeholder="a watercolour painting\n0.5 :: morning light",
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
                        "Views of the picture that are judged in each step: 1 is the whole "
                        "picture, more add random crops in perspective, which the model cannot "
                        "satisfy by noise. Each costs memory and time; 4 to 8 is plenty."
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
                *condition_inputs(),
            ],
            outputs=[conditions_output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        openclip: LoadedOpenClip,
        prompt: str,
        negative_prompt: str,
        crops: int,
        smallest_crop: float,
        **common,
    ) -> io.NodeOutput:
        owner = "Text Energy"
        positive = _prompts(prompt, owner, "prompt")
        negative = _prompts(negative_prompt, owner, "negative_prompt")
        if not positive + negative:
            raise ValueError(
                f"{owner}: expected a line of text in 'prompt' or 'negative_prompt', got none"
            )
        if openclip.texts is None:
            raise ValueError(
                f"{owner}: 'openclip' has no text tower; connect the CLIP that belongs to the "
                "image tower at 'clip' of Load OpenCLIP"
            )
        texts = [text for text, _ in positive + negative]
        try:
            targets = openclip.texts(texts)
            warnings = [_cut(text, end) for text in texts if (end := openclip.texts.unread(text))]
        except ValueError as error:
            raise ValueError(f"{owner}: {error}") from error
        notify(cls, warnings)
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
        return appended(owner, energy, **common)


class ZMagicStyle(io.ComfyNode):
    """How the picture is painted."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicStyle",
            display_name="Style Energy",
            category=CATEGORY,
            description=(
                "Pulls the picture's textures, brushwork and colours towards those of style "
                "pictures, whatever they show."
            ),
            search_aliases=[*SEARCH_ALIASES, "style transfer", "Gram matrix", "texture", "VGG"],
            inputs=[
                io.Image.Input(
                    "reference",
                    tooltip=f"The style. Any size; {SEVERAL_REFERENCES}",
                ),
                OpenClip.Input(
                    "openclip",
                    optional=True,
                    tooltip="From Load OpenCLIP. Connect this or 'network'.",
                ),
                OnnxNetwork.Input(
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
                        "After which blocks of the network style is compared, separated by commas, "
                        "1 is the first. OpenCLIP: blocks of its image tower; FreeDoM and Z-Magic "
                        "use 3. ONNX: activations (ReLU) of the file. Later ones see larger forms."
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
                *condition_inputs(),
                reference_mask_input("reference"),
            ],
            outputs=[conditions_output()],
        )

    @classmethod
    def execute(
        cls,
        reference: Tensor,
        blocks: str,
        style_weights: str,
        openclip: LoadedOpenClip | None = None,
        network: ImageNetwork | None = None,
        reference_mask: Tensor | None = None,
        **common,
    ) -> io.NodeOutput:
        owner = "Style Energy"
        if (openclip is None) == (network is None):
            raise ValueError(
                f"{owner}: expected either 'openclip' or 'network' to be connected, got "
                f"{'neither' if openclip is None else 'both'}"
            )
        styles, mask = pictures_and_mask(reference, reference_mask, owner)
        weights = _weights(style_weights, styles.shape[0], owner, "style_weights")
        numbers = _block_numbers(blocks, owner)
        try:
            if openclip is not None:
                features = openclip.after_blocks(numbers)
                preprocessing = openclip.preprocessing
            else:
                features = _after_activations(network, numbers)
                preprocessing = network.preprocessing
            targets = features.reference(
                lambda x, w, m=None: _targets(features, preprocessing, x, w, m),
                greyed(styles, mask),
                weights,
                *(() if mask is None else (mask,)),
                key=preprocessing,
            )
        except ValueError as error:
            raise ValueError(f"{owner}: {error}") from error
        return appended(owner, Style(features, preprocessing, targets), **common)


class ZMagicImageSimilarity(io.ComfyNode):
    """What the picture shows, by example."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicImageSimilarity",
            display_name="Image Similarity Energy",
            category=CATEGORY,
            description=(
                "Pulls the picture towards what reference pictures show and how they look, as "
                "OpenCLIP sees them; where things are does not matter."
            ),
            search_aliases=[*SEARCH_ALIASES, "CLIP vision", "variation", "semantic similarity"],
            inputs=[
                io.Image.Input(
                    "reference",
                    tooltip=f"What to resemble. Any size; {SEVERAL_REFERENCES}",
                ),
                OpenClip.Input("openclip", tooltip="From Load OpenCLIP."),
                io.String.Input(
                    "reference_weights",
                    default="",
                    placeholder="2, 1",
                    tooltip=(
                        "One number for each reference, separated by commas. Empty: all count the "
                        "same."
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
        openclip: LoadedOpenClip,
        reference_weights: str,
        reference_mask: Tensor | None = None,
        **common,
    ) -> io.NodeOutput:
        owner = "Image Similarity Energy"
        references, mask = pictures_and_mask(reference, reference_mask, owner)
        weights = _weights(reference_weights, references.shape[0], owner, "reference_weights")
        targets = openclip.embeddings(greyed(references, mask), mask)
        energy = ImageSimilarity(openclip.image, openclip.preprocessing, targets, weights)
        return appended(owner, energy, **common)


NODES = [ZMagicText, ZMagicStyle, ZMagicImageSimilarity]


def _prompts(text: str, owner: str, name: str) -> list[tuple[str, float]]:
    try:
        return parse_prompts(text)
    except ValueError as error:
        raise ValueError(f"{owner}: in '{name}' {error}") from None


def _cut(text: str, end: str) -> str:
    """What to say of a prompt whose end is not read."""
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
    """The Gram matrices of the style pictures, after each block that ``features`` returns."""
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


def _block_numbers(text: str, owner: str) -> tuple[int, ...]:
    """``3, 6`` as numbers, each once, in order."""
    parts = _parts(text)
    whole = all(part.isdecimal() and len(part) <= LONGEST_NUMBER for part in parts)
    numbers = sorted({int(part) for part in parts}) if whole else []
    if not numbers or numbers[0] < 1:
        raise ValueError(
            f"{owner}: 'blocks' must be numbers from 1 separated by commas such as '3' or '2, 4', "
            f"got {quoted(text)}"
        )
    return tuple(numbers)


def _weights(text: str, count: int, owner: str, name: str) -> Tensor:
    """One positive number for each of ``count`` references; equal ones for an empty text."""
    parts = _parts(text)
    if not parts:
        return torch.ones(count)
    numbers = [weight_in(part) for part in parts[: count + 1]]
    if len(parts) != count or None in numbers:
        raise ValueError(
            f"{owner}: '{name}' must be one positive number for each of the {count} reference "
            f"pictures, separated by commas, got {quoted(text)}"
        )
    return torch.tensor(numbers)


def _parts(text: str) -> list[str]:
    return text.replace(",", " ").split()
