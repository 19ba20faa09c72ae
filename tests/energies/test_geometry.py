"""Depth and normals: what they compare, and what does not matter to them."""

import pytest
import torch
from torch import Tensor, nn

from zmagic.guidance.energies import Depth, Normals

SIZE = (12, 16)


class Red(nn.Module):
    """A network that takes red for nearness."""

    def forward(self, image: Tensor) -> Tensor:
        return image[:, :1]


class Colors(nn.Module):
    """A network that takes colors for normals."""

    def forward(self, image: Tensor) -> Tensor:
        return 2.0 * image - 1.0


def picture(count: int = 1) -> Tensor:
    return torch.rand(count, 3, *SIZE, dtype=torch.float64)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (0.01, 0.0), (3.0, 0.7), (1e-3, 5e-3)])
def test_units_and_offsets_of_depth_do_not_matter(scale, offset):
    image, other = picture(), picture()
    energy = Depth(Red(), image[:, :1])
    same = scale * image + offset
    assert abs(energy(same).item()) < 1e-4
    torch.testing.assert_close(energy(scale * other + offset), energy(other), rtol=1e-4, atol=1e-4)
    scaled = Depth(Red(), scale * image[:, :1] + offset)
    torch.testing.assert_close(scaled(other), energy(other), rtol=1e-4, atol=1e-4)


def test_depth_is_a_correlation():
    image, target = picture(2), picture()[:, :1]
    found = Depth(Red(), target)(image)
    for b in range(2):
        both = torch.stack((image[b, 0].flatten(), target.flatten()))
        expected = 1.0 - torch.corrcoef(both)[0, 1]
        torch.testing.assert_close(found[b], expected, rtol=1e-4, atol=1e-5)
    inverted = Depth(Red(), 1.0 - image[:, :1])(image)
    torch.testing.assert_close(inverted, torch.full_like(inverted, 2.0), rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("energy", [Depth(Red(), picture()[:, :1]), Normals(Colors(), picture())])
def test_what_is_outside_of_a_region_does_not_matter(energy):
    image, region = picture(), torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    region[..., 3:9, 4:12] = 1.0
    changed = torch.where(region > 0.0, image, picture())
    torch.testing.assert_close(energy(changed, region), energy(image, region))
    assert not torch.allclose(energy(changed), energy(image))


def test_what_does_not_count_of_a_target_does_not_matter():
    image, mask = picture(), torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    mask[..., :5, :] = 1.0
    others = torch.where(mask > 0.0, image, picture())
    assert abs(Depth(Red(), others[:, :1], mask)(image).item()) < 1e-5
    assert abs(Normals(Colors(), 2.0 * others - 1.0, mask)(image).item()) < 1e-12


def test_normals_are_compared_by_their_directions():
    image, target = picture(2), 2.0 * picture() - 1.0
    expected = 1.0 - torch.cosine_similarity(2.0 * image - 1.0, target, dim=1).mean((1, 2))
    torch.testing.assert_close(Normals(Colors(), target)(image), expected)
    torch.testing.assert_close(Normals(Colors(), 5.0 * target)(image), expected)


@pytest.mark.parametrize("mask", [None, torch.ones(2, 1, *SIZE)])
def test_a_flat_map_asks_for_nothing(mask):
    target = torch.rand(2, 1, *SIZE)
    target[1] = 0.5
    with pytest.raises(ValueError, match="^target 2 of 2 is equally near everywhere, so that it"):
        Depth(Red(), target, mask)
