"""Boxes, crops and gradients of regions, against torch's own resampling and their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from zmagic.guidance.pictures.preprocessing import Preprocessing
from zmagic.guidance.pictures.regions import (
    LEAST_SIDE,
    cropped,
    fitted_boxes,
    only_region_moves,
    region_boxes,
    seen,
)

SIZE = (37, 29)


def image(batch: int = 2, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.rand(batch, 3, *size, dtype=torch.float64)


def mask(*boxes: tuple[int, int, int, int], size: tuple[int, int] = SIZE) -> torch.Tensor:
    """One white rectangle (left, top, right, bottom) for each image."""
    masks = torch.zeros(len(boxes), 1, *size, dtype=torch.float64)
    for region, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        region[:, top:bottom, left:right] = 1.0
    return masks


# ---------------------------------------------------------------- gradients


def test_only_the_region_moves():
    region = torch.rand(1, 1, *SIZE, dtype=torch.float64)
    region[..., :9] = 0.0
    x = image().requires_grad_(True)
    assert torch.equal(only_region_moves(x, region), x)  # bit for bit
    upstream = torch.rand_like(x)
    (slope,) = torch.autograd.grad((only_region_moves(x, region) * upstream).sum(), x)
    assert torch.equal(slope, region * upstream)
    assert only_region_moves(x, None) is x


def test_second_derivatives_stay_inside_the_region():
    region = mask((3, 4, 12, 20))
    x = image(1).requires_grad_(True)
    energy = only_region_moves(x, region).pow(3).sum()
    (slope,) = torch.autograd.grad(energy, x, create_graph=True)
    (product,) = torch.autograd.grad(slope.sum(), x)
    torch.testing.assert_close(product, region * 6.0 * x)


# ---------------------------------------------------------------- boxes


def test_boxes_hold_each_region():
    boxes = region_boxes(mask((3, 5, 20, 30), (10, 0, 29, 9)), image())
    assert boxes.tolist() == [[3, 5, 20, 30], [10, 0, 29, 9]]


def test_soft_edges_count_from_a_twentieth_of_the_maximum():
    region = 0.4 * mask((10, 10, 20, 25))
    region[..., 5, 10] = 0.019
    region[..., 30, 15] = 0.021
    assert region_boxes(region, image(1)).tolist() == [[10, 10, 20, 31]]


@pytest.mark.parametrize("region", [None, torch.zeros(2, 1, *SIZE)], ids=["none", "empty"])
def test_no_region_is_the_whole_image(region):
    boxes = region_boxes(region, image())
    assert (boxes == torch.tensor([0, 0, SIZE[1], SIZE[0]])).all()


@pytest.mark.parametrize(("left", "top"), [(0, 0), (28, 36), (14, 2)])
def test_a_point_has_a_box_that_can_be_seen(left, top):
    box = region_boxes(mask((left, top, left + 1, top + 1)), image(1))[0]
    assert (box[2:] - box[:2]).tolist() == [LEAST_SIDE, LEAST_SIDE]
    assert box[0] <= left < box[2] <= SIZE[1] and box[1] <= top < box[3] <= SIZE[0]
    tiny = region_boxes(torch.ones(1, 1, 3, 5), torch.rand(1, 3, 3, 5))
    assert tiny.tolist() == [[0, 0, 5, 3]]


def test_boxes_are_constants():
    region = mask((3, 4, 12, 20)).requires_grad_(True)
    assert not region_boxes(region, image(1).requires_grad_(True)).requires_grad


@settings(max_examples=100, deadline=None)
@given(
    left=st.floats(0, 20),
    top=st.floats(0, 28),
    wide=st.floats(1, 9),
    high=st.floats(1, 9),
    aspect=st.floats(0.2, 5.0),
)
def test_fitted_boxes(left, top, wide, high, aspect):
    box = torch.tensor([[left, top, left + wide, top + high]], dtype=torch.float64)
    picture = image(1)
    fitted = fitted_boxes(box, picture, aspect)[0]
    sides = (fitted[2:] - fitted[:2]).tolist()
    assert sides[0] / sides[1] == pytest.approx(aspect)
    assert fitted.min() >= -1e-9
    assert fitted[2] <= SIZE[1] + 1e-9 and fitted[3] <= SIZE[0] + 1e-9
    if max(wide, high * aspect) <= SIZE[1] and max(high, wide / aspect) <= SIZE[0]:
        assert (fitted[:2] <= box[0, :2] + 1e-9).all() and (fitted[2:] >= box[0, 2:] - 1e-9).all()


def test_fitting_the_whole_image_cuts_it_evenly():
    fitted = fitted_boxes(region_boxes(None, image()), image(), 1.0)
    assert fitted.tolist() == [[0, 4, 29, 33]]


# ---------------------------------------------------------------- crops


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(7, 5), (12, 29), (37, 60), (64, 64)])
def test_the_whole_image_is_resampled_like_torch(mode, size):
    x = image()
    expected = F.interpolate(x, size=size, mode=mode, antialias=True)
    torch.testing.assert_close(cropped(x, region_boxes(None, x), size, mode), expected)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_its_own_size_is_the_image_itself(mode):
    x = image().float()
    assert torch.equal(cropped(x, region_boxes(None, x), SIZE, mode), x)


def test_a_box_of_pixels_is_a_slice():
    x = image()
    boxes = torch.tensor([[4, 6, 14, 26], [9, 0, 19, 20]])
    result = cropped(x, boxes, (20, 10))
    torch.testing.assert_close(result[0], x[0, :, 6:26, 4:14])
    torch.testing.assert_close(result[1], x[1, :, 0:20, 9:19])
    assert torch.equal(cropped(x, boxes[:1], (20, 10))[0], result[0])  # one box for all


def test_enlarged_boxes_agree_with_grid_sample():
    x = image(1)
    left, top, right, bottom = 5.3, 8.1, 17.9, 21.4
    height, width = 30, 40
    xs = left + (torch.arange(width, dtype=torch.float64) + 0.5) * (right - left) / width
    ys = top + (torch.arange(height, dtype=torch.float64) + 0.5) * (bottom - top) / height
    grid_y, grid_x = torch.meshgrid(2 * ys / SIZE[0] - 1, 2 * xs / SIZE[1] - 1, indexing="ij")
    expected = F.grid_sample(x, torch.stack((grid_x, grid_y), -1)[None], align_corners=False)
    box = torch.tensor([[left, top, right, bottom]], dtype=torch.float64)
    torch.testing.assert_close(cropped(x, box, (height, width)), expected)


def test_shrinking_does_not_alias():
    stripes = torch.zeros(1, 3, 64, 64)
    stripes[..., ::2] = 1.0
    small = cropped(stripes, torch.tensor([[3.0, 3.0, 61.0, 61.0]]), (8, 8))
    assert (small - 0.5).abs().max() < 0.02


def test_beyond_the_border_the_outermost_pixels_go_on():
    x = image(1)
    boxes = torch.tensor([[-10.0, -10.0, 0.0, 0.0]])
    result = cropped(x, boxes, (10, 10))
    torch.testing.assert_close(result, x[..., :1, :1].expand(-1, -1, 10, 10))
    half = cropped(x, torch.tensor([[-5.0, 4.0, 5.0, 14.0]]), (10, 10))
    torch.testing.assert_close(half[..., 5:], x[..., 4:14, :5])
    torch.testing.assert_close(half[..., :5], x[..., 4:14, :1].expand(-1, -1, -1, 5))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_crops_are_differentiable(mode):
    x = image(2, (9, 8)).requires_grad_(True)
    boxes = torch.tensor([[1.3, 0.4, 6.1, 7.9], [-2.0, 3.1, 5.2, 9.3]], dtype=torch.float64)
    boxes.requires_grad_(True)

    def crop(x, boxes):
        return cropped(x, boxes, (3, 11), mode)

    assert torch.autograd.gradcheck(crop, (x, boxes), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: crop(x, boxes.detach()).pow(2), x, fast_mode=True)


def test_unknown_interpolation():
    with pytest.raises(ValueError, match="must be one of bilinear, bicubic, got nearest"):
        cropped(image(), torch.tensor([[0.0, 0.0, 5.0, 5.0]]), (5, 5), "nearest")


def test_crops_on_another_device():
    """The meta device refuses to mix with tensors left on the CPU."""
    x = torch.rand(2, 3, *SIZE, device="meta")
    region = torch.ones(1, 1, *SIZE, device="meta")
    preprocessing = Preprocessing((16, 16), fit="crop")
    assert seen(x, region, preprocessing).shape == (2, 3, 16, 16)


# ---------------------------------------------------------------- what a network is shown


@pytest.mark.parametrize("fit", ["crop", "stretch"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(48, 48), (48, 72), (90, 60)])
def test_a_region_of_everything_shows_what_no_region_shows(fit, interpolation, size):
    preprocessing = Preprocessing((24, 24), (0.5,), (0.25,), fit=fit, interpolation=interpolation)
    x = image(2, size)
    whole = torch.ones(1, 1, *size, dtype=torch.float64)
    torch.testing.assert_close(seen(x, whole, preprocessing), preprocessing(x))


def test_a_region_shows_its_surroundings_and_moves_alone():
    preprocessing = Preprocessing((10, 10), fit="crop")
    region = mask((10, 12, 20, 16))
    x = image(1).requires_grad_(True)
    view = seen(x, region, preprocessing)  # the box of 10 x 4 pixels grows to 10 x 10
    torch.testing.assert_close(view, x[..., 9:19, 10:20])
    (slope,) = torch.autograd.grad(view.square().sum(), x)
    assert not slope[(region == 0.0).expand_as(slope)].any()
    torch.testing.assert_close(slope[..., 12:16, 10:20], 2.0 * x[..., 12:16, 10:20])
