"""Label maps with soft edges: nobody painted the classes that lie between two others."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from zmagic.guidance.pictures.label_maps import LabelMap
from zmagic.nodes.parsing.colors import FACE_COLORS, parse_palette

DATA = Path(__file__).resolve().parents[1] / "data"

CLASSES = len(FACE_COLORS)
PALETTE = parse_palette("", CLASSES)
COLORS = [tuple(round(255 * part) for part in color) for color in PALETTE.tolist()]

# What the two files show: background, skin, eyes, nose, upper lip, clothes, hair.
PAINTED = {0, 1, 4, 5, 10, 12, 16, 17}


def tensor(picture: Image.Image) -> torch.Tensor:
    pixels = np.array(picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255.0


def by_color(picture: Image.Image) -> LabelMap:
    return LabelMap.from_colors(tensor(picture), PALETTE, CLASSES)


def by_number(picture: Image.Image) -> LabelMap:
    return LabelMap.from_gray(tensor(picture), CLASSES)


def asked(target: LabelMap) -> torch.Tensor:
    """The class of each pixel, -1 where it is free."""
    free = target.weights[0, 0] == 0.0
    return torch.where(free, -1, target.values[0].int().argmax(0))


def classes(target: LabelMap) -> set[int]:
    return set(asked(target).unique().tolist()) - {-1}


def portrait(size: int, fill, paper=None) -> Image.Image:
    """A head with hard edges; ``fill`` makes a class the color that it is painted in."""
    paper = fill(0) if paper is None else paper
    picture = Image.new("L" if isinstance(paper, int) else "RGB", (size, size), paper)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0.15 * size, 0.83 * size, 0.85 * size, size), fill(16))
    for number, *box in (
        (17, 0.2, 0.05, 0.8, 0.9),
        (1, 0.28, 0.2, 0.72, 0.85),
        (4, 0.33, 0.38, 0.45, 0.43),
        (5, 0.55, 0.38, 0.67, 0.43),
        (10, 0.45, 0.45, 0.55, 0.6),
        (12, 0.38, 0.66, 0.62, 0.75),
    ):
        draw.ellipse([edge * size for edge in box], fill(number))
    return picture


def colored(number: int) -> tuple[int, ...]:
    return COLORS[number]


def numbered(number: int) -> int:
    return number


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


def test_an_antialiased_color_map():
    assert classes(by_color(Image.open(DATA / "label_aa128.png"))) == PAINTED


def test_an_index_map_through_a_bilinear_upscale():
    assert classes(by_number(Image.open(DATA / "index_bilinear.png"))) == PAINTED


@pytest.mark.parametrize("fill", [colored, numbered])
def test_hard_edges_are_kept_as_they_are(fill):
    """Lines of one pixel too."""
    picture = portrait(96, fill)
    ImageDraw.Draw(picture).line((0, 0, 95, 95), fill(10))
    target = (by_color if fill is colored else by_number)(picture)
    truth = portrait(96, numbered)
    ImageDraw.Draw(truth).line((0, 0, 95, 95), 10)
    assert torch.equal(asked(target), torch.from_numpy(np.array(truth)).long())


@pytest.mark.parametrize("fill", [colored, numbered])
@pytest.mark.parametrize(
    ("larger", "how"),
    [
        (4.0, Image.BOX),
        (8.0, Image.BOX),
        (4.0, Image.BICUBIC),
        (0.5, Image.BILINEAR),
        (0.5, Image.BICUBIC),
        (0.25, Image.BILINEAR),
    ],
)
def test_resized_maps_hold_what_was_painted(fill, larger, how):
    side = 192
    picture = portrait(round(side * larger), fill).resize((side, side), how)
    target = (by_color if fill is colored else by_number)(picture)
    assert classes(target) == PAINTED
    truth = torch.from_numpy(np.array(portrait(side, numbered))).long()
    found = asked(target)
    for number in PAINTED:  # most of every class is asked for where it was painted
        assert (found[truth == number] == number).float().mean() > 0.4, number
    assert ((found != truth) & (found >= 0)).float().mean() < 0.02


@pytest.mark.parametrize("paper", [(255, 255, 255), (128, 128, 128)])
def test_edges_on_paper_that_is_no_class(paper):
    picture = portrait(4 * 192, colored, paper).resize((192, 192), Image.BOX)
    assert classes(by_color(picture)) == PAINTED - {0}


def test_edges_on_free_numbers():
    picture = portrait(96, numbered, 255).resize((192, 192), Image.BILINEAR)
    assert classes(by_number(picture)) == PAINTED - {0}


@pytest.mark.parametrize("quality", [75, 95])
def test_jpeg_is_borne(quality):
    target = by_color(jpeg(portrait(192, colored), quality))
    truth = torch.from_numpy(np.array(portrait(192, numbered))).long()
    found = asked(target)
    assert ((found != truth) & (found >= 0)).float().mean() < 0.005
    for number in (0, 1, 16, 17):
        assert (found[truth == number] == number).float().mean() > 0.6, number


def test_a_blurred_map():
    picture = portrait(192, colored).filter(ImageFilter.GaussianBlur(1.5))
    assert classes(by_color(picture)) == PAINTED


def test_numbers_that_are_no_class_are_still_refused():
    with pytest.raises(ValueError, match="the index map holds 40, expected"):
        by_number(portrait(96, lambda number: 40 if number == 10 else number))


def test_hidden_pixels_are_free():
    picture = tensor(portrait(96, colored))
    counts = torch.zeros(1, 1, 96, 96)
    counts[..., :48] = 1.0
    target = LabelMap.from_colors(picture, PALETTE, CLASSES, counts)
    assert not target.weights[..., 48:].any() and target.weights[..., :48].all()
    numbers = tensor(portrait(96, numbered))
    numbers[..., 48:] = torch.rand(1, 3, 96, 48)
    target = LabelMap.from_gray(numbers, CLASSES, counts)
    assert not target.weights[..., 48:].any() and target.weights[..., :48].all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LabelMap.from_colors(torch.ones(1, 3, 8, 8), PALETTE, CLASSES),
            "no pixel of the target asks for a class: none has the color of one.\nIts most "
            "frequent colors are #ffffff; those of the classes are #000000, #cc0000",
        ),
        (
            lambda: LabelMap.from_gray(torch.ones(1, 3, 8, 8), CLASSES),
            "no pixel .* a class: the index map is white",
        ),
        (
            lambda: LabelMap.from_masks([torch.zeros(1, 8, 8)], [1], CLASSES),
            "no pixel .* a class: the masks are black all over",
        ),
    ],
)
def test_a_target_that_asks_for_nothing_says_why(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
