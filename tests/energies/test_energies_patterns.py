"""What energies of patterns measure: brightness, seams, symmetry, sharpness."""

import math

import pytest
import torch
from skimage.measure import blur_effect
from torch.nn import functional as F

from zmagic.guidance.energies import BrightnessMap, Seamless, Sharpness, Symmetry

from .derivatives import gradient


def gray(values: torch.Tensor) -> torch.Tensor:
    return values.expand(-1, 3, -1, -1)


def smooth(height: int, width: int) -> torch.Tensor:
    small = torch.rand(1, 3, 5, 7, dtype=torch.float64)
    return F.interpolate(small, size=(height, width), mode="bicubic").clamp(0.0, 1.0)


@pytest.mark.parametrize("make", [lambda: BrightnessMap(smooth(40, 56), blur=0.04), Symmetry])
def test_same_value_at_twice_the_resolution(make):
    energy, image = make(), smooth(60, 84)
    twice = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(energy(twice), energy(image), rtol=0.05, atol=1e-4)


# ---------------------------------------------------------------- brightness


def checkerboard(squares: int = 4, side: int = 8) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(squares), torch.arange(squares), indexing="ij")
    board = ((rows + columns) % 2).double()
    return gray(board.repeat_interleave(side, 0).repeat_interleave(side, 1)[None, None])


@pytest.mark.parametrize("blur", [0.0, 0.03])
def test_a_map_is_met_at_its_levels(blur):
    board = checkerboard()
    energy = BrightnessMap(board, blur=blur, dark=0.2, bright=0.7)
    assert energy(0.2 + 0.5 * board).item() < 1e-12
    assert energy(0.7 - 0.5 * board).item() > 0.1
    assert energy(torch.full_like(board, 0.45)).item() > 0.02


def test_darker_than_dark_and_brighter_than_bright_are_left_alone():
    board = checkerboard()
    energy = BrightnessMap(board, blur=0.0, dark=0.2, bright=0.7)
    assert energy(board).item() == 0.0 and not gradient(energy, board).any()
    pale = 0.3 + 0.3 * board
    assert energy(pale).item() == pytest.approx(0.1**2)
    colored = pale * torch.tensor([0.9, 0.6, 1.2], dtype=torch.float64).view(1, 3, 1, 1)
    assert gradient(energy, colored)[board == 0.0].min() > 0.0


def test_gray_minds_both_sides_by_half():
    energy = BrightnessMap(gray(torch.full((1, 1, 8, 8), 0.5)).double(), blur=0.0)
    for level in (0.4, 0.6):
        image = torch.full((1, 3, 8, 8), level, dtype=torch.float64)
        assert energy(image).item() == pytest.approx(0.5 * 0.1**2)


@pytest.mark.parametrize("levels", [(0.5, 0.5), (0.6, 0.4), (-0.1, 0.5), (0.5, 1.1)])
def test_levels_are_in_order(levels):
    with pytest.raises(ValueError, match="dark < bright"):
        BrightnessMap(torch.rand(1, 3, 8, 8), dark=levels[0], bright=levels[1])


# ---------------------------------------------------------------- seams


def waves(height: int, width: int, across: float, down: float) -> torch.Tensor:
    """Waves, so many in a row and in a column: seamless where the number is whole."""
    x = torch.arange(width, dtype=torch.float64) / width
    y = torch.arange(height, dtype=torch.float64)[:, None] / height
    wave = (2.0 * math.pi * (across * x + down * y)).sin()
    return gray((0.5 + 0.4 * wave)[None, None])


def test_whole_waves_are_seamless():
    image = waves(64, 64, 2.0, 1.0)
    assert Seamless()(image).item() < 0.05 * Seamless()(waves(64, 64, 2.5, 1.5)).item()
    half = waves(64, 64, 2.5, 1.0)
    left_and_right, top_and_bottom = Seamless("left and right"), Seamless("top and bottom")
    assert top_and_bottom(half).item() < 0.01 * left_and_right(half).item()
    torch.testing.assert_close(
        Seamless()(half), (left_and_right(half) + top_and_bottom(half)) / 2.0
    )


def test_a_ramp_jumps_by_its_height_and_does_not_bend():
    ramp = gray((torch.arange(64, dtype=torch.float64) / 64.0).expand(1, 1, 64, 64))
    assert Seamless("left and right")(ramp).item() == pytest.approx(1.0)
    assert Seamless("top and bottom")(ramp).item() == pytest.approx(0.0, abs=1e-20)


def test_a_fold_bends():
    up = torch.arange(32, dtype=torch.float64)
    roof = gray(torch.cat((up, up.flip(0))).expand(1, 1, 64, 64) / 64.0)
    expected = sum((2.0 * block / 64.0) ** 2 for block in (1, 2, 4)) / 3.0
    assert Seamless("left and right")(roof).item() == pytest.approx(expected)


def test_the_middle_is_not_moved():
    slope = gradient(Seamless(), torch.rand(1, 3, 64, 96, dtype=torch.float64))
    assert not slope[..., 12:-12, 12:-12].any()
    assert slope[..., 0, :].any() and slope[..., :, -1].any()


def test_the_box_of_a_region_is_the_tile():
    image = torch.rand(1, 3, 70, 90, dtype=torch.float64)
    image[..., 4:68, 12:76] = waves(64, 64, 1.0, 2.0)
    region = torch.zeros(1, 1, 70, 90, dtype=torch.float64)
    region[..., 4:68, 12:76] = 1.0
    alone = Seamless()(waves(64, 64, 1.0, 2.0))
    torch.testing.assert_close(Seamless()(image, region), alone)


# ---------------------------------------------------------------- symmetry


@pytest.mark.parametrize(
    ("mirror", "turned"),
    [("left and right", (-1,)), ("top and bottom", (-2,)), ("half turn", (-2, -1))],
)
@pytest.mark.parametrize("size", [(30, 41), (32, 40)])
def test_a_mirror_image_beside_it_is_symmetric(mirror, turned, size):
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    whole = (image + image.flip(turned)) / 2.0
    assert Symmetry(mirror)(whole).item() < 1e-20
    expected = (image - image.flip(turned)).square().mean()
    torch.testing.assert_close(Symmetry(mirror, blur=0.0)(image)[0], expected)


def test_the_mirror_stands_in_the_middle_of_the_region():
    image = torch.rand(1, 3, 32, 60, dtype=torch.float64)
    half = image[..., 10:20]
    image[..., 20:30] = half.flip(-1)
    region = torch.zeros(1, 1, 32, 60, dtype=torch.float64)
    region[..., 10:30] = 1.0
    assert Symmetry()(image, region).item() < 1e-20 < Symmetry()(image).item()


# ---------------------------------------------------------------- sharpness


def noise(exponent: float, side: int = 128) -> torch.Tensor:
    """Gray noise whose amplitudes fall as 1 / frequency^exponent."""
    frequency = torch.fft.fftfreq(side, dtype=torch.float64)
    radius = (frequency[:, None].square() + frequency.square()).sqrt()
    radius[0, 0] = 1.0
    spectrum = torch.fft.fft2(torch.randn(1, 1, side, side, dtype=torch.float64))
    field = torch.fft.ifft2(spectrum / radius**exponent).real
    return gray(0.5 + 0.15 * (field - field.mean()) / field.std())


@pytest.mark.parametrize(("exponent", "expected"), [(0.0, 0.8), (1.0, -0.1), (2.0, -0.8)])
def test_sharpness_of_known_spectra(exponent, expected):
    assert Sharpness().of(noise(exponent)).item() == pytest.approx(expected, abs=0.1)


def test_nothing_but_a_blur_changes_it():
    image = noise(1.0)
    sharp = Sharpness().of(image)
    torch.testing.assert_close(Sharpness().of(0.2 + 0.3 * image), sharp, rtol=0.0, atol=5e-3)
    small = F.avg_pool2d(image, 2)
    blurred = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    assert Sharpness().of(blurred) < sharp - 0.2
    flat = torch.full_like(image, 0.4)
    assert Sharpness().of(flat).item() == pytest.approx(-1.0)


@pytest.mark.parametrize("target", [0.0, -0.9])
def test_descent_reaches_the_sharpness_and_another_measure_agrees(target):
    image = smooth(64, 64) if target == 0.0 else noise(1.0, 64)
    energy, before = Sharpness(target), blur_effect(image[0, 0].numpy())
    for k in range(60):
        slope = gradient(energy, image)
        image = image - 0.01 * (1.0 - k / 60) * slope / slope.square().mean().sqrt()
    assert energy.of(image).item() == pytest.approx(target, abs=0.1)
    change = blur_effect(image[0, 0].numpy()) - before  # 0 is sharp, 1 blurred
    assert change < -0.1 if target == 0.0 else change > 0.05
