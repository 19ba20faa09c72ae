"""What every energy promises: derivatives, independence of samples, regions, devices, modes."""

import pytest
import torch
from torch import Tensor

from zmagic.guidance.energies import ColorPalette, Energy, ReferenceImage, Sketch

COLORS = torch.tensor([[0.15, 0.27, 0.33], [0.16, 0.62, 0.56], [0.91, 0.77, 0.42]])

ENERGIES = {
    "palette of a picture": lambda reference: ColorPalette(reference, lightness=0.5),
    "palette with proportions": lambda reference: ColorPalette(None, COLORS, torch.arange(1, 4)),
    "palette of colors": lambda reference: ColorPalette(None, COLORS),
    "sketch of a photograph": lambda reference: Sketch(reference, line_width=0.06),
    "sketch of a drawing": lambda reference: Sketch(reference, drawing=True, line_width=0.06),
    "wide sketch": lambda reference: Sketch(reference, line_width=0.2),
    "reference": lambda reference: ReferenceImage(reference, blur=0.08),
    "reference pixel by pixel": lambda reference: ReferenceImage(reference, blur=0.0),
    "reference through a wide blur": lambda reference: ReferenceImage(reference, blur=0.4),
}

SIZE = (25, 27)


@pytest.fixture(params=ENERGIES, ids=lambda name: name.replace(" ", "-"))
def energy(request) -> Energy:
    return ENERGIES[request.param](torch.rand(1, 3, 20, 30))


@pytest.fixture
def image() -> Tensor:
    """A batch that overshoots [0, 1] on both sides, as decoders do."""
    return torch.rand(2, 3, *SIZE, dtype=torch.float64) * 1.4 - 0.2


def soft_region(batch: int = 2) -> Tensor:
    """Gray inside, exactly 0 in the left part and in a hole."""
    region = torch.rand(batch, 1, *SIZE, dtype=torch.float64)
    region[..., :6] = 0.0
    region[..., 5:9, 10:13] = 0.0
    return region


def gradient(energy: Energy, image: Tensor, region: Tensor | None = None) -> Tensor:
    image = image.clone().requires_grad_(True)
    (result,) = torch.autograd.grad(energy(image, region).sum(), image)
    return result


def test_protocol(energy, image):
    assert isinstance(energy, Energy)
    assert energy(image).shape == (2,)
    assert energy(image).dtype == torch.float64


@pytest.mark.parametrize("with_region", [False, True])
def test_gradient(energy, image, with_region):
    region = soft_region() if with_region else None
    image.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: energy(x, region), image, fast_mode=True)


@pytest.mark.parametrize("with_region", [False, True])
def test_hessian_product(energy, image, with_region):
    region = soft_region() if with_region else None
    direction = torch.randn_like(image)
    image.requires_grad_(True)
    (slope,) = torch.autograd.grad(energy(image, region).sum(), image, create_graph=True)
    (product,) = torch.autograd.grad(slope, image, direction)
    step = 1e-9  # shorter than the way to the next pixel that sorts of colors would pass
    expected = (
        gradient(energy, image.detach() + step * direction, region)
        - gradient(energy, image.detach() - step * direction, region)
    ) / (2 * step)
    torch.testing.assert_close(product, expected, rtol=1e-4, atol=1e-7 + 1e-5 * product.abs().max())


def test_samples_are_independent(energy, image):
    region = soft_region()
    together = energy(image, region)
    for b in range(2):
        torch.testing.assert_close(energy(image[b : b + 1], region[b : b + 1])[0], together[b])
    image.requires_grad_(True)
    (slope,) = torch.autograd.grad(energy(image, region)[0], image)
    assert slope[0].abs().max() > 0.0
    assert not slope[1].any()


@pytest.mark.parametrize("batch", [1, 2])
def test_nothing_outside_the_region_counts(energy, image, batch):
    region = soft_region(batch)
    outside = (region == 0.0).expand_as(image)
    elsewhere = torch.where(outside, torch.rand_like(image), image)
    assert torch.equal(energy(image, region), energy(elsewhere, region))
    slope = gradient(energy, image, region)
    assert not slope[outside].any()
    assert slope[~outside].abs().max() > 0.0


def test_whole_region_is_no_region(energy, image):
    whole = torch.ones(1, 1, *SIZE, dtype=torch.float64)
    torch.testing.assert_close(energy(image, whole), energy(image))


def test_empty_region_is_finite_and_does_not_guide(energy, image):
    empty = torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    assert energy(image, empty).isfinite().all()
    assert not gradient(energy, image, empty).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [-0.5, 0.0, 0.04045, 1.0, 1.5])
def test_flat_and_overshooting_images_are_finite(energy, dtype, level):
    image = torch.full((2, 3, *SIZE), level, dtype=dtype)
    image[1] += torch.linspace(-0.3, 0.3, SIZE[1], dtype=dtype)
    image.requires_grad_(True)
    value = energy(image)
    (slope,) = torch.autograd.grad(value.sum(), image, create_graph=True)
    assert value.isfinite().all() and slope.isfinite().all()
    if slope.requires_grad:
        (product,) = torch.autograd.grad(slope.sum(), image)
        assert product.isfinite().all()


def test_single_precision_agrees_with_double(energy, image):
    region = soft_region()
    single = energy(image.float(), region)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), energy(image, region), rtol=1e-3, atol=1e-5)


def test_same_value_at_twice_the_resolution(energy):
    image = torch.nn.functional.interpolate(torch.rand(2, 3, 5, 7), size=(60, 84), mode="bicubic")
    twice = torch.nn.functional.interpolate(
        image, scale_factor=2, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(energy(twice), energy(image), rtol=0.12, atol=2e-3)


def test_runs_on_another_device(energy):
    """The meta device refuses to mix with tensors left on the CPU."""
    image = torch.rand(2, 3, *SIZE, device="meta", requires_grad=True)
    region = torch.ones(1, 1, *SIZE, device="meta")
    value = energy(image, region)
    assert value.device.type == "meta" and value.shape == (2,)


@pytest.mark.parametrize("name", ENERGIES)
def test_reference_made_and_first_used_in_inference_mode(name, image):
    """The host runs nodes in inference mode; what they make must still allow gradients."""
    with torch.inference_mode():
        energy = ENERGIES[name](torch.rand(1, 3, 20, 30))
        energy(image)
    assert gradient(energy, image).isfinite().all()


def test_calls_leave_no_trace(energy, image):
    first = energy(image)
    energy(torch.rand(1, 3, 40, 12), torch.rand(1, 1, 40, 12))
    assert torch.equal(energy(image), first)


@pytest.mark.parametrize("make", [ColorPalette, Sketch, ReferenceImage])
def test_one_reference_for_each_image(make, image):
    references = torch.rand(2, 3, 20, 30)
    together = make(references)(image)
    for b in range(2):
        alone = make(references[b : b + 1])(image[b : b + 1])
        torch.testing.assert_close(alone[0], together[b])
    with pytest.raises(ValueError, match="holds 2 pictures, expected 1 or the batch size 3"):
        make(references)(torch.rand(3, 3, *SIZE))


@pytest.mark.parametrize("make", [ColorPalette, Sketch, ReferenceImage])
def test_reference_must_be_rgb_pictures(make):
    with pytest.raises(ValueError, match=r"reference must be RGB pictures"):
        make(torch.rand(20, 30, 3))


@pytest.mark.parametrize("make", [ColorPalette, Sketch, ReferenceImage])
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


def test_descent(energy):
    """Steps against the gradient lower the energy; that is all that guidance does with it."""
    image = smooth_picture((2, 3, 24, 24))
    before = energy(image)
    for k in range(60):
        slope = gradient(energy, image)
        image = image - 0.02 * (1.0 - k / 60) * slope / slope.square().mean().sqrt()
    assert (energy(image) < 0.2 * before).all()


def smooth_picture(shape: tuple[int, ...]) -> Tensor:
    small = torch.rand(*shape[:2], 5, 5)
    return torch.nn.functional.interpolate(small, size=shape[2:], mode="bicubic").clamp(0.0, 1.0)
