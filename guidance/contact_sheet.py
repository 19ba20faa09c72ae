"""Labeled sheets of images, drawn with Pillow.

Cells have the size of their pictures to the pixel, which a library for plots does not promise.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .wording import printable

__all__ = ["contact_sheet", "sentence"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

LABEL = 26  # height of a label strip in pixels
GAP = 12  # beside a picture or a text in pixels
SMALLEST_CELL = 192  # smaller images are enlarged by a whole factor, so that they can be seen
NARROWEST_CELL = 48  # a picture of one row or column has some paper around it
LONGEST_CELL = 4  # widths of a picture in heights that are enlarged as much as a square
# Pixels of a sheet, and along a side of it: larger pictures are made smaller.
LARGEST_AREA, LARGEST_SIDE = 32_000_000, 16_000
LONGEST_LABEL = 60  # characters of a line that is drawn
INK = (40, 40, 40)
PAPER = (255, 255, 255)


def contact_sheet(
    columns: Sequence[tuple[str, Tensor]],
    conditions: Sequence[tuple[str, Tensor | None]] = (),
) -> Tensor:
    """Labeled columns of images side by side, one row per image of the batch.

    Args:
        columns: ``(label, images [B, H, W, 3] in [0, 1])``; batches of different length leave
            white cells, images of different size are centered.
        conditions: what a first column shows, from top to bottom: ``(caption, image [H, W, 3])``
            for a reference picture, ``(text, None)`` for a text.

    Returns:
        ``[1, H', W', 3]`` in [0, 1].
    """
    sizes = [_size_of(images) for _, images in columns]
    width, height = (max(side) for side in zip(*sizes, strict=True))
    rows = max(len(images) for _, images in columns)
    across, down = width * (len(columns) + bool(conditions)), height * rows
    scale = min(1.0, LARGEST_SIDE / max(across, down), (LARGEST_AREA / (across * down)) ** 0.5)
    width, height = (max(NARROWEST_CELL, int(side * scale)) for side in (width, height))
    pictures = [(label, [_picture(image, scale) for image in images]) for label, images in columns]
    first = width if conditions else 0
    sheet = Image.new("RGB", (first + width * len(pictures), LABEL + height * rows), PAPER)
    draw = ImageDraw.Draw(sheet)
    if conditions:
        _centered(draw, "conditions", (width // 2, LABEL // 2))
        side = min(height, height * rows // len(conditions))
        for k, (caption, image) in enumerate(conditions):
            sheet.paste(_condition((width, side), caption, image), (0, LABEL + k * side))
    for c, (label, column) in enumerate(pictures):
        _centered(draw, label, (first + c * width + width // 2, LABEL // 2))
        for r, picture in enumerate(column):
            left = first + c * width + (width - picture.width) // 2
            sheet.paste(picture, (left, LABEL + r * height + (height - picture.height) // 2))
    return _tensor(sheet)


def sentence(text: str, width: int, height: int) -> Tensor:
    """Draw a sentence in place of a picture, ``[1, height, width, 3]`` in [0, 1]; it is wrapped."""
    return _tensor(_condition((width, height), text, None))


def _condition(size: tuple[int, int], caption: str, image: Tensor | None) -> Image.Image:
    """A picture above its caption, or a text alone, on white."""
    cell = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(cell)
    if image is None:
        font = _font(15)
        text = _wrapped(draw, printable(caption), font, size[0] - 2 * GAP)
        middle = (size[0] // 2, size[1] // 2)
        draw.multiline_text(middle, text, INK, font, anchor="mm", align="center", spacing=6)
        return cell
    picture = _picture(image)
    room = [max(1, side - margin) for side, margin in zip(size, (GAP, LABEL), strict=True)]
    scale = min(room[0] / picture.width, room[1] / picture.height)
    sides = [max(1, round(scale * side)) for side in picture.size]
    picture = picture.resize(sides, Image.Resampling.LANCZOS)
    cell.paste(picture, ((size[0] - picture.width) // 2, size[1] - LABEL - picture.height))
    _centered(draw, caption, (size[0] // 2, size[1] - LABEL // 2))
    return cell


def _wrapped(draw: ImageDraw.ImageDraw, text: str, font: Font, width: int) -> str:
    """Words in lines that are not wider than ``width`` pixels, if the words are not."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font=font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _centered(draw: ImageDraw.ImageDraw, text: str, middle: tuple[int, int]) -> None:
    text = " ".join(printable(text).split())  # on one line: several have no middle
    text = text if len(text) <= LONGEST_LABEL else f"{text[:LONGEST_LABEL]}..."
    draw.text(middle, text, fill=INK, font=_font(14), anchor="mm")


def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _size_of(images: Tensor) -> tuple[int, int]:
    """Width and height of ``[B, H, W, 3]`` on a sheet: tiny ones are enlarged by a whole factor."""
    height, width = images.shape[-3:-1]
    # The longer side counts where a picture is far longer than high.
    factor = max(1, -(-SMALLEST_CELL // max(height, width // LONGEST_CELL)))
    return width * factor, height * factor


def _picture(image: Tensor, scale: float = 1.0) -> Image.Image:
    """``[H, W, 3]`` in [0, 1] to a picture of its size on a sheet, times ``scale``."""
    pixels = image.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()
    sides = [max(1, int(side * scale)) for side in _size_of(image[None])]
    picture = Image.fromarray(pixels)
    return picture.resize(
        sides, Image.Resampling.BICUBIC if scale == 1.0 else Image.Resampling.LANCZOS
    )


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).float().div(255)[None]
