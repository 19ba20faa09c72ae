"""What energies of the picture itself measure, against independent computations."""

import kornia
import pytest
import torch

from zmagic.guidance.energies import ColorPalette, ReferenceImage, Sketch
from zmagic.guidance.energies.color_palette import _directions
from zmagic.guidance.pictures.color_spaces import srgb_to_lab
from zmagic.guidance.pictures.references import cover

from .derivatives import gradient
from .energy_table import ENERGIES

# ---------------------------------------------------------------- what they have in common

SIZE = (25, 27)
OF_REFERENCES = [ColorPalette, Sketch, ReferenceImage]


@pytest.mark.parametrize(
    "name", [name for name in ENERGIES if {"palette", "sketch", "reference"} & {*name.split()}]
)
def test_same_value_at_twice_the_resolution(name):
    energy = ENERGIES[name](torch.rand(1, 3, 20, 30))
    image = torch.nn.functional.interpolate(torch.rand(2, 3, 5, 7), size=(60, 84), mode="bicubic")
    twice = torch.nn.functional.interpolate(
        image, scale_factor=2, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(energy(twice), energy(image), rtol=0.12, atol=2e-3)


@pytest.mark.parametrize("make", OF_REFERENCES)
def test_references_are_one_or_as_many_as_the_images(make):
    with pytest.raises(ValueError, match="holds 2 pictures, expected 1 or the batch size 3"):
        make(torch.rand(2, 3, 20, 30))(torch.rand(3, 3, *SIZE))


@pytest.mark.parametrize("make", OF_REFERENCES)
def test_reference_must_be_rgb_pictures(make):
    with pytest.raises(ValueError, match=r"reference must be RGB pictures"):
        make(torch.rand(20, 30, 3))


@pytest.mark.parametrize("make", OF_REFERENCES)
@pytest.mark.parametrize("size", [SIZE, (70, 130)])
def test_perfect_match_is_the_minimum(make, size):
    reference = torch.rand(1, 3, *size, dtype=torch.float64)
    energy = make(reference)
    assert energy(reference).item() < 1e-12
    assert gradient(energy, reference).abs().max() < 1e-12
    assert energy(torch.rand_like(reference)).item() > 1e-4


@pytest.mark.parametrize(
    ("make", "left"),
    [(ColorPalette, 0.02), (Sketch, 0.1), (ReferenceImage, 0.001)],
    ids=["palette", "sketch", "reference"],
)
def test_descent_on_pixels_reaches_the_reference(make, left):
    shape = (1, 3, 24, 24)
    reference = smooth_picture(shape)
    energy = make(reference)
    image = smooth_picture(shape)
    before = energy(image)
    for k in range(150):
        slope = gradient(energy, image)
        image = image - 0.02 * (1.0 - k / 150) * slope / slope.square().mean().sqrt()
    assert energy(image) < left * before


def smooth_picture(shape: tuple[int, ...]) -> torch.Tensor:
    small = torch.rand(*shape[:2], 5, 5)
    return torch.nn.functional.interpolate(small, size=shape[2:], mode="bicubic").clamp(0.0, 1.0)


# ---------------------------------------------------------------- color


def test_lab_of_known_colors():
    # CIE Lab (D65) of the sRGB primaries, as tabulated in color science references.
    colors = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).double()
    expected = [
        [100.0, 0.0, 0.0],
        [0.0, 0.0, 0.0],
        [53.24, 80.09, 67.20],
        [87.73, -86.18, 83.18],
        [32.30, 79.19, -107.86],
    ]
    result = srgb_to_lab(colors.T[None])[0].T
    torch.testing.assert_close(result, torch.tensor(expected).double(), atol=0.02, rtol=0.0)


def test_lab_agrees_with_kornia_inside_the_range():
    image = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    expected = kornia.color.rgb_to_lab(image)
    torch.testing.assert_close(srgb_to_lab(image), expected, atol=0.05, rtol=0.0)


def test_transport_is_the_sorted_difference_for_equal_weights():
    image, reference = torch.rand(2, 1, 3, 12, 12, dtype=torch.float64).unbind(0)
    clouds = [srgb_to_lab(x.flatten(2)) / 100.0 for x in (image, reference)]
    first, second = ((_directions(image) @ cloud).sort(-1).values for cloud in clouds)
    expected = 3.0 * (first - second).square().mean()
    torch.testing.assert_close(ColorPalette(reference)(image)[0], expected)


def test_transport_weights_are_multiplicities():
    """A pixel of weight 1 beside one of weight 1/3 is three equal pixels beside one."""
    a, b, c, d = torch.rand(4, 3, dtype=torch.float64)
    image = torch.stack((a, b), dim=1)[None, :, None]  # [1, 3, 1, 2]
    region = torch.tensor([1.0, 1.0 / 3.0], dtype=torch.float64).view(1, 1, 1, 2)
    spread = torch.stack((a, a, a, b), dim=1)[None, :, None]
    energy = ColorPalette(None, torch.stack((c, d)), torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(energy(image, region), energy(spread))


def test_a_shift_of_all_colors_costs_its_square():
    color = torch.tensor([[0.4, 0.5, 0.6]], dtype=torch.float64)
    image = torch.tensor([0.5, 0.45, 0.3], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 9, 9)
    difference = srgb_to_lab(image[..., 0, 0]) - srgb_to_lab(color)
    expected = (difference / 100.0).square().sum()
    for proportions, times in [(torch.ones(1), 1.0), (None, 2.0)]:  # without: both directions
        value = ColorPalette(None, color, proportions)(image)[0]
        torch.testing.assert_close(value, times * expected, rtol=0.03, atol=0.0)


def test_proportions_are_met_exactly():
    colors = torch.tensor([[0.1, 0.2, 0.6], [0.9, 0.7, 0.2]], dtype=torch.float64)
    image = colors[torch.tensor([0, 1, 1, 1])].T[None, :, None]  # one to three
    energy = ColorPalette(None, colors, torch.tensor([1.0, 3.0]))
    swapped = ColorPalette(None, colors, torch.tensor([3.0, 1.0]))
    assert energy(image).item() < 1e-12
    assert swapped(image).item() > 0.01


def test_free_proportions_ask_for_every_color_and_no_other():
    colors = torch.tensor([[0.1, 0.2, 0.6], [0.9, 0.7, 0.2]], dtype=torch.float64)
    energy = ColorPalette(None, colors)

    def value(*which):
        return energy(colors[torch.tensor(which)].T[None, :, None]).item()

    half, quarter, one_missing = value(0, 0, 1, 1), value(0, 1, 1, 1), value(1, 1, 1, 1)
    assert abs(half - quarter) < 0.01 < 0.1 < one_missing
    stranger = torch.tensor([0.9, 0.1, 0.6], dtype=torch.float64)
    image = torch.cat((colors[torch.tensor([0, 1, 1])], stranger[None])).T[None, :, None]
    assert energy(image).item() > quarter + 0.05


def test_lightness_can_be_left_free():
    reference = torch.rand(1, 3, 12, 12, dtype=torch.float64) * 0.5
    gray = torch.full_like(reference, 0.3)
    lighter = torch.full_like(reference, 0.8)
    free = ColorPalette(reference, lightness=0.0)
    torch.testing.assert_close(free(gray), free(lighter), rtol=1e-3, atol=0.0)
    strict = ColorPalette(reference, lightness=1.0)
    assert strict(lighter) > strict(gray) + 0.05


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"reference": torch.rand(1, 3, 4, 4), "colors": torch.rand(2, 3)},
        {"colors": torch.rand(2, 4)},
        {"colors": torch.rand(2, 3), "proportions": torch.tensor([1.0, 0.0])},
        {"colors": torch.rand(2, 3), "proportions": torch.ones(3)},
        {"colors": torch.rand(2, 3), "lightness": -1.0},
    ],
)
def test_palette_refuses(arguments):
    with pytest.raises(ValueError, match="^"):
        ColorPalette(**arguments)


# ---------------------------------------------------------------- sketch


def disc(size: int = 48) -> torch.Tensor:
    y, x = torch.meshgrid(
        *[torch.linspace(-1.0, 1.0, size, dtype=torch.float64)] * 2, indexing="ij"
    )
    return ((0.6 - (x.square() + y.square()).sqrt()) * size / 2).clamp(0.0, 1.0)[None, None]


def circle(size: int = 48) -> torch.Tensor:
    """A drawing of the disc: a dark line of two pixels on white paper."""
    y, x = torch.meshgrid(
        *[torch.linspace(-1.0, 1.0, size, dtype=torch.float64)] * 2, indexing="ij"
    )
    distance = ((x.square() + y.square()).sqrt() - 0.6).abs() * size / 2
    return (distance - 0.5).clamp(0.0, 1.0)[None, None].expand(1, 3, -1, -1)


def photograph(shape: torch.Tensor, dark: float = 0.0, bright: float = 1.0) -> torch.Tensor:
    return (dark + (bright - dark) * shape).expand(1, 3, -1, -1)


def test_sketch_ignores_contrast_and_polarity():
    energy = Sketch(photograph(disc()), line_width=0.03)
    for other in (photograph(disc(), 0.02, 0.1), photograph(disc(), 0.9, 0.4)):
        assert energy(other).item() < 0.02
    shifted = photograph(disc()).roll(12, -1)
    assert energy(shifted).item() > 0.5


@pytest.mark.parametrize("inverted", [False, True])
def test_a_drawing_stands_for_the_edges(inverted):
    drawing = 1.0 - circle() if inverted else circle()
    as_drawing = Sketch(drawing, drawing=True, line_width=0.03)(photograph(disc()))
    as_photograph = Sketch(drawing, line_width=0.03)(photograph(disc()))
    assert as_drawing.item() < 0.1
    assert as_photograph.item() > 2 * as_drawing.item()


def test_the_border_of_a_region_is_no_edge():
    region = torch.zeros(1, 1, 48, 48, dtype=torch.float64)
    region[..., 10:40, 24:] = 1.0
    flat = torch.full((1, 3, 48, 48), 0.5, dtype=torch.float64)
    lit = torch.where(region > 0, flat, torch.ones_like(flat))
    energy = Sketch(flat, line_width=0.05)
    assert energy(lit, region).item() < 1e-12


def test_sketch_refuses():
    with pytest.raises(ValueError, match="line width must be > 0, got 0"):
        Sketch(torch.rand(1, 3, 8, 8), line_width=0.0)


# ---------------------------------------------------------------- reference image


def test_reference_image_is_the_mean_square_without_blur():
    image, reference = torch.rand(2, 2, 3, 9, 11, dtype=torch.float64).unbind(0)
    expected = (image - reference).square().mean((1, 2, 3))
    torch.testing.assert_close(ReferenceImage(reference, blur=0.0)(image), expected)


def test_blur_forgives_detail_not_color():
    reference = torch.full((1, 3, 48, 48), 0.5, dtype=torch.float64)
    checked = reference.clone()
    checked[..., ::2, ::2] += 0.2
    checked[..., 1::2, ::2] -= 0.2
    tinted = reference + 0.1
    sharp, blurred = ReferenceImage(reference, 0.0), ReferenceImage(reference, 0.08)
    assert sharp(checked).item() > sharp(tinted).item()
    assert blurred(checked).item() < 1e-4
    torch.testing.assert_close(blurred(tinted), torch.full((1,), 0.01, dtype=torch.float64))


def test_reference_image_refuses():
    with pytest.raises(ValueError, match="blur must be >= 0, got -1"):
        ReferenceImage(torch.rand(1, 3, 8, 8), blur=-1.0)


# ---------------------------------------------------------------- references


def test_cover_fills_and_cuts_evenly():
    picture = torch.zeros(1, 3, 20, 40)
    picture[..., 10:30] = 1.0  # the middle square
    assert torch.equal(cover(picture, 10, 10), torch.ones(1, 3, 10, 10))
    upright = cover(picture.transpose(-1, -2), 30, 30)
    assert torch.equal(upright, torch.ones(1, 3, 30, 30))
    assert cover(picture, 20, 40) is picture
    assert cover(torch.rand(1, 3, 3, 500), 64, 64).shape == (1, 3, 64, 64)
