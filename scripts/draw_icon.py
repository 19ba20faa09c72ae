"""Draws ``docs/icon.png`` and ``docs/banner.png``: ``python scripts/draw_icon.py``.

A Z of one wire that several conditions hold, as the nodes are wired; in the colors of Okabe and
Ito, which people with any color vision tell apart. ComfyUI's registry asks for a square icon of
400 pixels at most and a banner of 21 to 9.
"""

from __future__ import annotations

import math
from pathlib import Path

from headless import PACK
from PIL import Image, ImageDraw, ImageFont

__all__ = ["banner", "icon", "main"]

FINE = 4  # everything is drawn this many times larger, then scaled down
ICON_SIDE = 400
BANNER_SIZE = (1260, 540)
GROUND, INK, QUIET = (24, 26, 34), (240, 240, 245), (160, 164, 176)
ORANGE, BLUE, GREEN, YELLOW = (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)
CONDITIONS = {"text": ORANGE, "face": BLUE, "layout": GREEN, "style": YELLOW}
# The corners of the Z in its square, in the order of the wire.
CORNERS = ((0.24, 0.27), (0.76, 0.27), (0.24, 0.73), (0.76, 0.73))

Color = tuple[int, int, int]
Point = tuple[float, float]


def icon() -> Image.Image:
    """The square icon."""
    side = ICON_SIDE * FINE
    image = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, side - 1, side - 1), radius=side // 6, fill=GROUND)
    draw_z(draw, (0.0, 0.0), side)
    return image.resize((ICON_SIDE, ICON_SIDE), Image.Resampling.LANCZOS)


def banner() -> Image.Image:
    """The conditions, wired to the Z, and the name of the pack."""
    width, height = (length * FINE for length in BANNER_SIZE)
    image = Image.new("RGB", (width, height), GROUND)
    draw = ImageDraw.Draw(image)
    side = 0.62 * height
    left, top = 0.18 * width, 0.19 * height
    box_width, box_height = 0.09 * width, 0.11 * height
    for (name, color), (x, y) in zip(CONDITIONS.items(), CORNERS, strict=True):
        end = left + x * side, top + y * side
        before = x < 0.5  # the Z's left corners have their conditions on the left
        center = (0.085 if before else 0.535) * width, (0.22 if y < 0.5 else 0.78) * height
        start = center[0] + (0.5 if before else -0.5) * box_width, center[1]
        draw_wire(draw, start, end, color, 0.008 * height)
        corner = center[0] - box_width / 2, center[1] - box_height / 2
        box = (*corner, corner[0] + box_width, corner[1] + box_height)
        line = round(0.006 * height)
        draw.rounded_rectangle(box, 0.02 * height, GROUND, outline=color, width=line)
        draw.text(center, name, INK, _font(0.05 * height), anchor="mm")
    draw_z(draw, (left, top), side)
    x = 0.635 * width
    draw.text((x, 0.42 * height), "Z-Magic", INK, _font(0.19 * height), anchor="lm")
    words = "One picture, several wishes at once.", "Guided while it is made, without training."
    for line, text in enumerate(words):
        y = (0.58 + 0.075 * line) * height
        draw.text((x, y), text, QUIET, _font(0.042 * height), anchor="lm")
    return image.resize(BANNER_SIZE, Image.Resampling.LANCZOS)


def draw_z(draw: ImageDraw.ImageDraw, origin: Point, side: float) -> None:
    """The Z in a square at ``origin``: a wire that changes its color from corner to corner."""
    points = [(origin[0] + x * side, origin[1] + y * side) for x, y in CORNERS]
    colors = list(CONDITIONS.values())
    radius = 0.055 * side
    for number in range(3):
        ends, tints = points[number : number + 2], colors[number : number + 2]
        steps = math.ceil(math.dist(*ends) / (0.2 * radius))
        for step in range(steps + 1):
            at = step / steps
            _dot(draw, _between(*ends, at), radius, _mixed(*tints, at))
    for point, color in zip(points, colors, strict=True):
        _dot(draw, point, 1.75 * radius, GROUND)
        _dot(draw, point, 1.4 * radius, color)


def draw_wire(
    draw: ImageDraw.ImageDraw, start: Point, end: Point, color: Color, radius: float
) -> None:
    """A wire as between nodes: it leaves and arrives level."""
    bend = 0.5 * (end[0] - start[0])
    controls = start, (start[0] + bend, start[1]), (end[0] - bend, end[1]), end
    steps = math.ceil(math.dist(start, end) / (0.4 * radius))
    for step in range(steps + 1):
        t = step / steps
        weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
        x, y = (sum(w * p[k] for w, p in zip(weights, controls, strict=True)) for k in (0, 1))
        _dot(draw, (x, y), radius, color)


def main(folder: Path = PACK / "docs") -> None:
    """Write both pictures into ``folder``."""
    for name, image in (("icon", icon()), ("banner", banner())):
        image.save(folder / f"{name}.png", optimize=True)


def _dot(draw: ImageDraw.ImageDraw, center: Point, radius: float, color: Color) -> None:
    x, y = center
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def _between(a: Point, b: Point, at: float) -> Point:
    return a[0] + at * (b[0] - a[0]), a[1] + at * (b[1] - a[1])


def _mixed(a: Color, b: Color, at: float) -> Color:
    red, green, blue = (round(x + at * (y - x)) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _font(height: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)  # Pillow's own: the same on every machine


if __name__ == "__main__":
    main()
