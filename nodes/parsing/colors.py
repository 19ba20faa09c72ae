"""Colors as people write them: palettes, with proportions or in the order of classes."""

import re

import torch
from torch import Tensor

from ...guidance.wording import quoted
from .numbers import weight_in

__all__ = ["FACE_COLORS", "parse_colors", "parse_palette"]

# Colors of a palette: each is compared with each pixel.
MOST_COLORS = 256

COLOR = re.compile(r"#?(?P<digits>[0-9a-f]{6}|[0-9a-f]{3})(:(?P<share>[0-9.]+)%?)?", re.IGNORECASE)

# Classes of the BiSeNet face parsers trained on CelebAMask-HQ, in the order of their outputs, with
# the colors in which the data set's own tools draw them (CelebAMask-HQ, face_parsing/
# Data_preprocessing: g_mask.py numbers the parts in another order, g_color.py has the colors).
FACE_COLORS = {
    "background": "#000000",
    "skin": "#cc0000",
    "left brow": "#00ffff",
    "right brow": "#ffcccc",
    "left eye": "#3333ff",
    "right eye": "#cc00cc",
    "glasses": "#cccc00",
    "left ear": "#663300",
    "right ear": "#ff0000",
    "earring": "#00cccc",
    "nose": "#4c9900",
    "mouth": "#66cc00",
    "upper lip": "#ffff00",
    "lower lip": "#000099",
    "neck": "#ff9933",
    "necklace": "#003300",
    "clothes": "#00cc00",
    "hair": "#0000cc",
    "hat": "#ff3399",
}


def parse_colors(text: str) -> tuple[Tensor, Tensor | None]:
    """Read a palette such as ``"#264653, #2a9d8f"`` or ``"#264653:3 #2a9d8f:1"``.

    Returns:
        colors ``[J, 3]`` in [0, 1], and their proportions ``[J]`` or None.

    Raises:
        ValueError: there is no color, or more than MOST_COLORS, a word is not a color, a
            proportion is not positive, or only some of the colors have one.
    """
    words = text.replace(",", " ").replace(";", " ").split()
    if len(words) > MOST_COLORS:
        raise ValueError(f"'colors' must be at most {MOST_COLORS}, got {len(words)}")
    if not words:
        raise ValueError("'colors' must name at least one color such as '#2a9d8f', got none")
    matches = [_color_match(word) for word in words]
    shares = [match["share"] for match in matches]
    if any(shares) and not all(shares):
        bare = words[shares.index(None)]
        raise ValueError(
            f"'colors' must give every color a proportion or none, got {quoted(bare)} without one"
        )
    colors = torch.tensor([_channels(match["digits"]) for match in matches])
    return colors, torch.tensor([float(share) for share in shares]) if all(shares) else None


def parse_palette(text: str, classes: int) -> Tensor:
    """The colors of the classes ``[J, 3]``, in their order; of an empty text FACE_COLORS.

    Raises:
        ValueError: a word is no color, two are equal, or there are more than classes.
    """
    if not text.strip():
        if classes != len(FACE_COLORS):
            raise ValueError(
                f"'colors' must name the colors of the segmenter's {classes} classes in their "
                f"order: the built-in ones are those of {len(FACE_COLORS)} face classes"
            )
        text = " ".join(FACE_COLORS.values())
    palette, proportions = parse_colors(text)
    if proportions is not None:
        raise ValueError("'colors' must be hexadecimal colors without proportions")
    if len(palette) > classes:
        raise ValueError(
            f"'colors' names {len(palette)} colors, the segmenter has {classes} classes"
        )
    equal = (torch.cdist(palette, palette) == 0.0).triu(1).nonzero().tolist()
    if equal:
        first, second = equal[0]
        raise ValueError(f"'colors' must differ, got the same one for classes {first} and {second}")
    return palette


def _color_match(word: str) -> re.Match:
    match = COLOR.fullmatch(word)
    valid = match is not None and (match["share"] is None or weight_in(match["share"]) is not None)
    if not valid:
        raise ValueError(
            "'colors' must be hexadecimal colors with optional positive proportions, such as "
            f"'#2a9d8f' or '#2a9d8f:3', got {quoted(word)}"
        )
    return match


def _channels(digits: str) -> list[float]:
    """``"2a9d8f"`` or ``"29f"`` to red, green and blue in [0, 1]."""
    width = len(digits) // 3
    full_scale = 16**width - 1
    return [int(digits[i : i + width], 16) / full_scale for i in range(0, len(digits), width)]
