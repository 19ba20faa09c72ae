"""What is said about a portrait: whole captions, parts of them, and the questions of the test."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["QUESTIONS", "UNANSWERED", "Question", "some_of"]

HAIR = ("black", "brown", "blond", "red", "grey")
CLOTHES = (
    "red", "blue", "green", "white", "black", "yellow", "pink", "purple", "grey", "brown",
)  # fmt: skip

# How a sentence about a person begins.
OPENINGS = ("a photo of", "a portrait of", "a picture of", "")

# Chance that a caption is told whole, and that a part of it is told otherwise.
WHOLE, PART = 0.25, 0.25


# Stands in place of the right prompt of a picture that has none.
UNANSWERED = -1


@dataclass(frozen=True)
class Question:
    """An attribute asked by one prompt for each of its values.

    Args:
        prompts: the prompt of each value.
        answer: the right value, None for a picture that has none.
    """

    prompts: dict[object, str]
    answer: Callable[[dict], object]

    def places(self, labels: Iterable[dict]) -> Tensor:
        """``[N]``: places of the right prompts, UNANSWERED where there is none."""
        places = {None: UNANSWERED} | {value: place for place, value in enumerate(self.prompts)}
        return torch.tensor([places[self.answer(label)] for label in labels])


QUESTIONS = {
    "hair color": Question(
        {color: f"a photo of a person with {color} hair" for color in HAIR},
        # A hat or no hair leaves nothing to be seen.
        lambda label: (
            None
            if label["style"] == "bald" or label.get("hat", "none") != "none"
            else label["hair"]
        ),
    ),
    "gender": Question(
        {gender: f"a photo of a {gender}" for gender in ("man", "woman")},
        lambda label: label["gender"],
    ),
    "beard": Question(
        {True: "a photo of a man with a beard", False: "a photo of a man without a beard"},
        # Stubble and moustaches are in between; the question is asked of men.
        lambda label: (
            None
            if label["gender"] != "man" or label.get("beard_style") in ("stubble", "moustache")
            else label["beard"]
        ),
    ),
    "clothing color": Question(
        {color: f"a photo of a person wearing {color}" for color in CLOTHES},
        # Of stripes or dots either color is right; the question is asked of plain clothing.
        lambda label: label["cloth"] if label.get("pattern", "plain") == "plain" else None,
    ),
    "glasses": Question(
        {True: "a photo of a person wearing glasses", False: "a photo of a person without glasses"},
        lambda label: label.get("glasses", "none") != "none",
    ),
    "hat": Question(
        {True: "a photo of a person wearing a hat", False: "a photo of a person without a hat"},
        lambda label: label.get("hat", "none") != "none",
    ),
    "smile": Question(
        {True: "a photo of a person smiling", False: "a photo of a person not smiling"},
        lambda label: label["smile"],
    ),
}


def some_of(label: dict) -> str:
    """The caption of a picture, or a sentence that tells a random part of it.

    A contrastive model learns how much more likely a picture is with a sentence than without it, so
    that it may be asked about one attribute only if it has seen sentences about one.
    """
    if _chance() < WHOLE:
        return label["caption"]
    told = [part for part in _parts(label) if _chance() < PART]
    person = _noun(label)
    opening = OPENINGS[int(_chance() * len(OPENINGS))]
    sentence = " ".join(filter(None, (opening, person)))
    if not told:
        return sentence
    first, *others = told
    return ", ".join((f"{sentence} {first}", *others))


def _noun(label: dict) -> str:
    if _chance() < 0.4:
        return "a person"
    words = [
        ("old" if label["old"] else "young") if _chance() < PART else "",
        label["race"] if _chance() < PART else "",
    ]
    words = [*filter(None, words), label["gender"]]
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join((article, *words))


def _parts(label: dict) -> list[str]:
    bald = label["style"] == "bald"
    lengths = (f"{label['style']} ", "")
    hair = f"with {lengths[int(_chance() * 2)]}{label['hair']} hair"
    parts = ["with a bald head" if bald else hair]
    if label.get("beard_style") not in ("stubble", "moustache"):
        parts.append("with a beard" if label["beard"] else "without a beard")
    parts.append("smiling" if label["smile"] else "not smiling")
    parts.append(f"wearing {label['cloth']}")
    glasses, hat = (label.get(name, "none") != "none" for name in ("glasses", "hat"))
    parts.append("wearing glasses" if glasses else "without glasses")
    colors = (f"{label.get('hat_color')} ", "")
    parts.append(f"wearing a {colors[int(_chance() * 2)]}hat" if hat else "without a hat")
    parts.append(f"{label['bg']} background")
    return parts


def _chance() -> float:
    return float(torch.rand((), device="cpu"))
