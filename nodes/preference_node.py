"""The node that pulls the picture towards what people prefer, as models of their choices say."""

import torch
from comfy_api.latest import io

from ..guidance.energies import Preference
from ..guidance.energies.preference import Scores, for_a_prompt, of_opposites
from ..guidance.errors import advised
from ..guidance.wording import quoted
from ..host.aesthetic_heads import aesthetic_head_names, find_aesthetic_head, load_aesthetic_head
from ..host.model_files import usable_name
from ..host.networks import stamp_of
from ..host.openclip import OpenClip
from . import sockets
from .bases import EnergyNode, Made
from .openclip_energy_nodes import AT_LOADER, cut

__all__ = ["NODES"]

PROMPT, AESTHETIC, OPPOSITES = "PickScore or HPSv2", "LAION aesthetic", "CLIP-IQA"

# Pairs of opposites, each two passes of the text tower.
MOST_PAIRS = 64

# The name of the weights that aesthetic heads belong to has this in it.
OPENAI = "openai"


class ZMagicPreference(EnergyNode):
    """Pull the picture towards a higher score of a model of people's judgement."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicPreference",
            display_name="Preference Energy",
            description=(
                "Pulls the picture towards what people prefer: PickScore, HPSv2, LAION's aesthetic "
                "score, or what CLIP takes for a good photograph."
            ),
            search_aliases=[
                "aesthetic",
                "aesthetic score",
                "beautiful",
                "human preference",
                "reward",
                "quality",
                "PickScore",
                "HPSv2",
                "ImageReward",
                "CLIP-IQA",
            ],
            inputs=[
                sockets.OpenClip.Input(
                    "openclip",
                    tooltip=(
                        "From Load OpenCLIP: the weights of PickScore or HPSv2 (architecture "
                        "ViT-H-14); OpenAI's ViT-L-14 for an aesthetic head; any for CLIP-IQA."
                    ),
                ),
                io.DynamicCombo.Input(
                    "scorer",
                    options=[io.DynamicCombo.Option(*scorer) for scorer in _scorers().items()],
                    tooltip=(
                        "PickScore or HPSv2: how well people like the picture for a prompt; the "
                        "weights at 'openclip' decide which. LAION aesthetic: how well they like "
                        "it, by 'head'. CLIP-IQA: whether it looks more like one text than like "
                        "its opposite; needs no other file."
                    ),
                ),
                # Not one of the scorer's: ComfyUI would refuse a file that is not there without
                # saying where to get it.
                io.Combo.Input(
                    "head",
                    options=aesthetic_head_names(),
                    default=aesthetic_head_names()[0],
                    tooltip="For LAION aesthetic: a file in models/aesthetic. Others need none.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, scorer: dict | None = None, head: str = "") -> bool | str:
        """Leave a missing head to the run of the node, which says where to get it.

        ComfyUI hands on no scorer that it does not know, and says nothing of it.
        """
        fits = usable_name(head, "head")
        if fits is True and scorer is None:
            return f"'scorer' must be one of {', '.join(_scorers())}"
        return fits

    @classmethod
    def fingerprint_inputs(cls, scorer: dict, head: str = "", **others) -> tuple:
        """Change with the head's file."""
        if scorer["scorer"] != AESTHETIC:
            return ()
        return stamp_of(lambda: find_aesthetic_head(head), head)

    @classmethod
    def energy(cls, openclip: OpenClip, scorer: dict, head: str) -> Made:
        chosen = {name: value for name, value in scorer.items() if name != "scorer"}
        if scorer["scorer"] == AESTHETIC:
            scores, notices = _aesthetic(openclip, head)
        else:
            scores, notices = _OF_TEXTS[scorer["scorer"]](openclip, **chosen)
        energy = Preference(openclip.image, openclip.preprocessing, scores)
        return Made(energy, warnings=tuple(notices))


NODES = [ZMagicPreference]


def _scorers() -> dict[str, list[io.Input]]:
    """The inputs of each scorer, by its name."""
    return {
        PROMPT: [
            io.String.Input(
                "prompt",
                default="",
                multiline=True,
                placeholder="a portrait of a woman in the morning light",
                tooltip="The prompt that the picture is made for, as the model gets it.",
            )
        ],
        AESTHETIC: [],
        OPPOSITES: [
            io.String.Input(
                "good",
                default="Good photo.",
                multiline=True,
                tooltip="What the picture should look like: one text a line.",
            ),
            io.String.Input(
                "bad",
                default="Bad photo.",
                multiline=True,
                tooltip="The opposite of each line of 'good', in the same order.",
            ),
        ],
    }


def _for_prompt(openclip: OpenClip, prompt: str) -> tuple[Scores, list[str]]:
    """The score for a prompt, and what is to be said of it."""
    prompt = " ".join(prompt.split())
    if not prompt:
        raise ValueError("expected the prompt of the picture in 'prompt', got none")
    embeddings, notices = _embedded(openclip, [prompt])
    if not openclip.preference:
        notices.append(
            "load the weights of PickScore or HPSv2 at Load OpenCLIP.\n"
            f"{openclip.name} is not named after them: by other weights this is no preference, but "
            "likeness to the prompt, as of Text Energy"
        )
    return for_a_prompt(embeddings, openclip.scale), notices


def _of_opposites(openclip: OpenClip, good: str, bad: str) -> tuple[Scores, list[str]]:
    """The score of pairs of texts, and what is to be said of it."""
    goods, bads = _lines(good), _lines(bad)
    if not goods or len(goods) != len(bads) or len(goods) > MOST_PAIRS:
        raise ValueError(
            "write as many lines into 'bad' as into 'good', each the opposite of the line there: "
            f"expected 1 to {MOST_PAIRS} in each, got {len(goods)} in 'good' and {len(bads)} in "
            "'bad'"
        )
    embeddings, notices = _embedded(openclip, goods + bads)
    pairs = zip(goods, bads, strict=True)
    notices += [
        f"{quoted(one)} stands against itself, without effect"
        for one, other in pairs
        if one == other
    ]
    count = len(goods)
    return of_opposites(embeddings[:count], embeddings[count:], openclip.scale), notices


_OF_TEXTS = {PROMPT: _for_prompt, OPPOSITES: _of_opposites}


def _aesthetic(openclip: OpenClip, head: str) -> tuple[Scores, list[str]]:
    """The score of a head, and what is to be said of it."""
    scores = load_aesthetic_head(find_aesthetic_head(head))
    black = torch.zeros(1, 3, *openclip.preprocessing.input_size)
    width, expected = openclip.embeddings(black).shape[1], scores.weights.shape[1]
    if width != expected:
        raise ValueError(
            "load OpenAI's ViT-L-14 at Load OpenCLIP (architecture ViT-L-14-quickgelu), or the "
            f"CLIP that {quoted(head)} was made for.\nThe head takes embeddings of {expected} "
            f"numbers, {openclip.name} makes {width}"
        )
    if OPENAI in openclip.name.lower():
        return scores, []
    return scores, [
        f"make sure that {openclip.name} is the CLIP that {quoted(head)} was made for: LAION's "
        "heads belong to OpenAI's ViT-L-14, and by other weights their score means nothing"
    ]


def _embedded(openclip: OpenClip, texts: list[str]) -> tuple[torch.Tensor, list[str]]:
    """Embeddings of texts, and sentences about those that are too long."""
    if openclip.texts is None:
        raise ValueError(
            "'openclip' has no text tower; connect the CLIP that belongs to the "
            "image tower at 'clip' of Load OpenCLIP"
        )
    with advised(AT_LOADER):
        embeddings = openclip.texts(texts)
        ends = [(text, openclip.texts.unread(text)) for text in texts]
    return embeddings, [cut(text, end) for text, end in ends if end]


def _lines(text: str) -> list[str]:
    return [stripped for line in text.splitlines() if (stripped := line.strip())]
