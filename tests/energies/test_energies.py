"""What every energy promises: the contract in guidance/energy.py, tested on each row of the table.

What an energy measures is tested in files of its own.
"""

import weakref
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import FunctionType, ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_pre_hook
from typing_extensions import is_protocol

from zmagic.guidance import energies
from zmagic.guidance.conditions import Condition, begin_step
from zmagic.guidance.energies import Energy, RunEnergy
from zmagic.guidance.energy import networks_of

from .derivatives import gradient
from .energy_table import ALL_REFERENCES_FOR_EACH_PICTURE, ENERGIES, FILLING

SIZE = (25, 27)
LEVELS = (-0.5, 0.0, 0.04045, 1.0, 1.5)


@pytest.fixture(autouse=True)
def _differentiable_twice():
    """The fused attention kernels have one derivative only."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


@pytest.fixture(params=ENERGIES, ids=lambda name: name.replace(" ", "-"))
def name(request) -> str:
    return request.param


@pytest.fixture
def energy(name) -> Energy:
    return ENERGIES[name](references(1))


@pytest.fixture
def image() -> Tensor:
    """A batch that overshoots [0, 1] on both sides, as decoders do."""
    return torch.rand(2, 3, *SIZE, dtype=torch.float64) * 1.4 - 0.2


def references(count: int) -> Tensor:
    """Pictures ``[count, 3, 20, 30]`` of which energies of the table are made."""
    return torch.rand(count, 3, 20, 30, dtype=torch.float64)


def soft_region(batch: int = 2) -> Tensor:
    """Return a region that is gray inside, exactly 0 in the left part and in a hole."""
    region = 0.1 + 0.9 * torch.rand(batch, 1, *SIZE, dtype=torch.float64)
    region[..., :6] = 0.0
    region[..., 5:9, 10:13] = 0.0
    return region


def white_region() -> Tensor:
    """Return the same region with 1 inside."""
    return (soft_region() > 0.0).double()


def moved(energy: Energy, **to) -> Energy:
    """The energy with its networks on another device or in another precision, as a host does it."""
    for network in networks_of(energy):
        network.to(**to)
    return energy


def tensors(part: object, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor that an energy holds, in its networks too."""
    if id(part) in seen or isinstance(part, (FunctionType, ModuleType, type)):
        return
    seen.add(id(part))
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, nn.Module):
        yield from part.state_dict(keep_vars=True).values()
    else:
        inside = part if isinstance(part, (list, tuple)) else getattr(part, "__dict__", {}).values()
        for each in inside:
            yield from tensors(each, seen)


# ---------------------------------------------------------------- values and derivatives


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_value_for_each_image_in_its_precision(energy, image, dtype):
    assert isinstance(energy, Energy)
    value = moved(energy, dtype=dtype)(image.to(dtype))
    assert value.shape == (2,) and value.dtype == dtype and value.isfinite().all()


@pytest.mark.parametrize("with_region", [False, True])
def test_gradient(energy, image, with_region):
    region = white_region() if with_region else None
    direction = torch.randn_like(image) * (white_region() if with_region else 1.0)
    slope = (gradient(energy, image, region) * direction).sum((1, 2, 3))

    def quotient(step):
        after, before = (energy(image + way * step * direction, region) for way in (1.0, -1.0))
        return (after - before) / (2 * step)

    # The first step is shorter than the way to the next kink of a rectifier, but leaves few digits
    # of a large energy, which the processor rounds; the second leaves ten times as many.
    quotients = torch.stack([quotient(1e-9), quotient(1e-8)])
    nearest = (quotients - slope).abs().argmin(0, keepdim=True)
    torch.testing.assert_close(slope, quotients.gather(0, nearest)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("with_region", [False, True])
def test_hessian_product(energy, image, with_region):
    region = white_region() if with_region else None
    direction = torch.randn_like(image) * (white_region() if with_region else 1.0)
    image.requires_grad_(True)
    (slope,) = torch.autograd.grad(energy(image, region).sum(), image, create_graph=True)
    (product,) = torch.autograd.grad(slope, image, direction)
    step = 1e-9  # shorter than the way to the next pixel that sorts of colors would pass
    expected = (
        gradient(energy, image + step * direction, region)
        - gradient(energy, image - step * direction, region)
    ) / (2 * step)
    torch.testing.assert_close(product, expected, rtol=1e-4, atol=1e-7 + 1e-5 * product.abs().max())


def test_flat_and_overshooting_images_are_finite(energy):
    levels = torch.tensor(LEVELS, dtype=torch.float64).view(-1, 1, 1, 1)
    ramp = torch.linspace(-0.3, 0.3, SIZE[1], dtype=torch.float64)
    flat = levels.expand(-1, 3, *SIZE)
    for dtype in (torch.float64, torch.float32):
        image = torch.cat((flat, flat + ramp)).to(dtype).requires_grad_(True)
        value = moved(energy, dtype=dtype)(image)
        (slope,) = torch.autograd.grad(value.sum(), image, create_graph=True)
        assert value.isfinite().all() and slope.isfinite().all()
        if slope.requires_grad:
            (product,) = torch.autograd.grad(slope.sum(), image)
            assert product.isfinite().all()


def test_single_precision_agrees_with_double(energy, image):
    region = soft_region()
    exact = energy(image, region)
    single = moved(energy, dtype=torch.float32)(image.float(), region)
    torch.testing.assert_close(single.double(), exact, rtol=1e-3, atol=1e-5)


def test_descent(energy):
    """Steps against the gradient lower the energy; that is all that guidance does with it."""
    image = smooth_picture()
    before = energy(image)
    for k in range(20):
        slope = gradient(energy, image)
        rms = slope.square().mean((1, 2, 3), keepdim=True).sqrt()
        image = image - 0.02 * (1.0 - k / 20) * slope / rms
    assert (energy(image) < 0.8 * before).all()


def smooth_picture() -> Tensor:
    small = torch.rand(2, 3, 5, 5, dtype=torch.float64)
    return nn.functional.interpolate(small, size=(24, 24), mode="bicubic").clamp(0.0, 1.0)


# ---------------------------------------------------------------- batches


def test_images_are_independent(energy, image):
    region = soft_region()
    for regions in (None, region[:1], region):
        together = energy(image, regions)
        for b in range(2):
            own = None if regions is None else regions[b % len(regions)][None]
            torch.testing.assert_close(energy(image[b : b + 1], own)[0], together[b])
    image.requires_grad_(True)
    (slope,) = torch.autograd.grad(energy(image, region)[0], image)
    assert slope[0].abs().max() > 0.0
    assert not slope[1].any()


@pytest.mark.parametrize("name", sorted(ENERGIES.keys() - ALL_REFERENCES_FOR_EACH_PICTURE))
def test_one_reference_for_each_image(name, image):
    pictures = references(2)
    together = ENERGIES[name](pictures)(image)
    for b in range(2):
        alone = ENERGIES[name](pictures[b : b + 1])(image[b : b + 1])
        torch.testing.assert_close(alone[0], together[b])


# ---------------------------------------------------------------- regions


@pytest.mark.parametrize("batch", [1, 2])
def test_nothing_outside_the_region_is_moved(energy, image, batch):
    region = soft_region(batch)
    slope = gradient(energy, image, region)
    outside = (region == 0.0).expand_as(image)
    assert not slope[outside].any()
    assert slope[~outside].abs().max() > 0.0
    if networks_of(energy):
        return  # a network sees what surrounds the region
    elsewhere = torch.where(outside, torch.rand_like(image), image)
    assert torch.equal(energy(image, region), energy(elsewhere, region))


def test_whole_region_is_no_region(energy, image):
    """The region is a square, of which no preprocessing cuts a part, rounded to pixels."""
    image, whole = image[..., :24, :24], torch.ones(1, 1, 24, 24, dtype=torch.float64)
    torch.testing.assert_close(energy(image, whole), energy(image))
    torch.testing.assert_close(gradient(energy, image, whole), gradient(energy, image))


def test_gray_region_asks_for_the_same(energy, image):
    """Energies of networks move the picture less then; the others take the average of less."""
    whole = torch.ones(1, 1, *SIZE, dtype=torch.float64)
    less = 0.5 if networks_of(energy) else 1.0
    torch.testing.assert_close(energy(image, 0.5 * whole), energy(image, whole))
    slope = gradient(energy, image, 0.5 * whole)
    torch.testing.assert_close(slope, less * gradient(energy, image, whole))


def test_empty_region_is_finite_and_does_not_guide(energy, image):
    empty = torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    assert energy(image, empty).isfinite().all()
    assert not gradient(energy, image, empty).any()


# ---------------------------------------------------------------- devices, modes, traces


def test_runs_on_another_device(energy, pytestconfig):
    """An accelerator, or the meta device: both refuse to mix with tensors left on the CPU."""
    accelerator = pytestconfig.zmagic_headless.available_device()
    device = "meta" if accelerator == "cpu" else accelerator
    image = torch.rand(2, 3, *SIZE, device=device, requires_grad=True)
    region = torch.ones(1, 1, *SIZE, device=device)
    if device == "meta" and getattr(energy, "locator", None) is FILLING:
        pytest.skip("meta tensors hold no region, from which the place of the face is read")
    moved(energy, device=device, dtype=torch.float32)
    value = energy(image, region)
    assert value.device.type == device and value.shape == (2,)


def test_made_and_first_used_in_inference_mode(name, image):
    """ComfyUI runs nodes in inference mode; what they make must still allow gradients."""
    with torch.inference_mode():
        energy = ENERGIES[name](references(1))
        energy(image)
    assert gradient(energy, image).isfinite().all()


def test_it_names_the_networks_that_it_runs(energy, image):
    ran: set[nn.Module] = set()
    handle = register_module_forward_pre_hook(lambda module, inputs: ran.add(module))
    try:
        energy(image)
    finally:
        handle.remove()
    named = networks_of(energy)
    assert ran <= {module for network in named for module in network.modules()}
    assert all(ran & set(network.modules()) for network in named)


def test_calls_leave_no_trace(energy, image):
    first = energy(image)
    held = list(tensors(energy, set()))
    before = [tensor.clone() for tensor in held]
    gradient(energy, torch.rand(1, 3, 40, 12).double(), torch.rand(1, 1, 40, 12).double())
    assert torch.equal(energy(image), first)
    after = list(tensors(energy, set()))
    assert [id(tensor) for tensor in after] == [id(tensor) for tensor in held]
    for tensor, copy in zip(after, before, strict=True):
        assert torch.equal(tensor, copy) and not tensor.requires_grad and tensor.grad is None


def test_calls_keep_no_picture(energy):
    image = torch.rand(1, 3, *SIZE, dtype=torch.float64, requires_grad=True)
    energy(image, soft_region(1)).sum().backward()
    trace = weakref.ref(image)
    del image
    assert trace() is None


def test_a_step_of_a_run_sees_the_same_and_leaves_the_energy_as_it_was(energy, image):
    first = energy(image)
    run = energy.begin_run() if isinstance(energy, RunEnergy) else energy
    for step in (0, 5, None):
        begin_step([Condition("condition", run)], step)
        assert torch.equal(run(image), run(image))
    assert torch.equal(energy(image), first)


# ---------------------------------------------------------------- the table


def test_no_energy_is_left_out():
    """Every class in the files of guidance/energies that is an energy has a row."""
    files = [
        import_module(f"{energies.__name__}.{m.name}") for m in iter_modules(energies.__path__)
    ]
    found = {
        each
        for file in files
        for each in vars(file).values()
        if isinstance(each, type) and each.__module__ == file.__name__ and issubclass(each, Energy)
    }
    in_table = {type(make(references(1))) for make in ENERGIES.values()}
    assert found == in_table
    exported = {getattr(energies, name) for name in energies.__all__}
    assert {each for each in exported if not is_protocol(each)} <= found


def test_no_picture_is_below_the_goal_of_an_energy_that_knows_it(name):
    goal = getattr(ENERGIES[name](references(1)), "goal", None)
    assert goal is None or ENERGIES[name](references(2))(references(2)).min() > goal
