"""The perceptual distance is the one that is published, and reads the files that people have."""

import pytest
import torch

from zmagic.guidance.energies import Perceptual
from zmagic.guidance.networks.lpips import BACKBONES, lpips_from_weights

from ..published_lpips import HEADS, backbone_weights, lpips_folder, published_lpips
from .small_networks import lpips_network


@pytest.fixture(scope="module")
def folder(pytestconfig):
    return lpips_folder(pytestconfig.zmagic_script("packages"))


def heads_in(folder, kind: str) -> dict[str, torch.Tensor]:
    file = folder / "lpips" / "weights" / "v0.1" / f"{HEADS[kind]}.pth"
    return torch.load(file, map_location="cpu", weights_only=True)


@pytest.mark.filterwarnings("ignore:.*pretrained.*:UserWarning", "ignore:Arguments.*:UserWarning")
@pytest.mark.parametrize("kind", BACKBONES)
def test_equal_to_the_authors_package(folder, kind):
    authors = published_lpips(folder, kind)
    ours = lpips_from_weights(backbone_weights(authors), heads_in(folder, kind), "net", "heads")
    pictures, references = torch.rand(2, 2, 3, 72, 88, dtype=torch.float64).unbind(0)
    expected = authors(pictures, references, normalize=True).flatten()
    energy = Perceptual(ours.double(), references, side=0)
    torch.testing.assert_close(energy(pictures), expected, rtol=1e-6, atol=0.0)
    assert torch.equal(energy(references), torch.zeros(2, dtype=torch.float64))
    smaller = torch.nn.functional.interpolate(  # as many networks are fed: antialiased
        torch.cat((pictures, references)), size=(64, 78), mode="bilinear", antialias=True
    )
    expected = authors(*smaller.split(2), normalize=True).flatten()
    reduced = Perceptual(ours, references, side=64)(pictures)
    torch.testing.assert_close(reduced, expected, rtol=1e-6, atol=0.0)


def test_a_region_sees_differences_inside_alone():
    """So many pixels away from the difference that no map sees it."""
    picture = torch.rand(1, 3, 96, 192, dtype=torch.float64)
    other = picture.clone()
    other[..., :32] = torch.rand_like(other[..., :32])
    energy = Perceptual(lpips_network(), other)
    right = torch.zeros(1, 1, 96, 192, dtype=torch.float64)
    right[..., 128:] = 1.0
    assert energy(picture, right) == 0.0
    assert energy(picture, 1.0 - right) > energy(picture) > 0.0


def test_the_maps_of_the_reference_are_made_once_a_run_and_dropped_with_it():
    network, sizes = lpips_network(), []

    def counted(x):
        sizes.append(len(x))
        return network(x)

    energy = Perceptual(counted, torch.rand(1, 3, 64, 64).double())
    images = torch.rand(3, 3, 64, 64).double()
    for _ in range(2):
        sizes.clear()
        run = energy.begin_run()
        for step in range(3):
            run.begin_step(step)
            run(images)
        assert sorted(sizes) == [1, 3, 3, 3]


def test_flat_and_black_pictures_have_derivatives():
    """Where no feature answers, vectors of length 0 have none in the published formula."""
    energy = Perceptual(lpips_network().float(), torch.rand(1, 3, 64, 64))
    black = torch.zeros(1, 3, 64, 64, requires_grad=True)
    (slope,) = torch.autograd.grad(energy(black).sum(), black, create_graph=True)
    (product,) = torch.autograd.grad(slope.sum(), black)
    assert slope.isfinite().all() and product.isfinite().all()


def random_weights(kind: str = "SqueezeNet 1.1") -> dict[str, torch.Tensor]:
    layers = BACKBONES[kind].layers().state_dict()
    return {f"features.{key}": torch.rand(value.shape) for key, value in layers.items()}


def random_heads(kind: str = "SqueezeNet 1.1") -> dict[str, torch.Tensor]:
    channels = BACKBONES[kind].channels
    return {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate(channels)}


@pytest.mark.parametrize(
    ("weights", "heads", "message"),
    [
        ({"visual.proj": torch.ones(2)}, random_heads(), "a.pth holds the weights of no .*proj"),
        ({}, random_heads(), "a.pth holds the weights of no classifier .* got none"),
        (random_weights(), {"x": torch.ones(1)}, "b.pth holds no linear heads of LPIPS.* got x"),
        (random_weights(), random_heads("VGG16"), "b.pth .* for VGG16, a.pth is a SqueezeNet 1.1"),
        (
            random_weights(),
            {key: -value for key, value in random_heads().items()},
            "b.pth holds weights below 0",
        ),
    ],
)
def test_other_files_are_refused(weights, heads, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        lpips_from_weights(weights, heads, "a.pth", "b.pth")


def test_half_precision_agrees():
    kind = "SqueezeNet 1.1"
    weights = {key: value - 0.5 for key, value in random_weights(kind).items()}
    weights = {k: v / v[0].numel() ** 0.5 if v.ndim > 1 else 0.1 * v for k, v in weights.items()}
    picture, reference = torch.rand(2, 1, 3, 64, 64).unbind(0)
    heads = random_heads(kind)
    single = lpips_from_weights(weights, heads, "a", "b")
    exact = Perceptual(single, reference)(picture)
    assert exact > 0.1
    for dtype in (torch.float16, torch.bfloat16):
        half = lpips_from_weights(weights, heads, "a", "b").to(dtype)
        value = Perceptual(lambda x, n=half, d=dtype: n(x.to(d)), reference)(picture)
        torch.testing.assert_close(value, exact, rtol=0.01, atol=0.0)
