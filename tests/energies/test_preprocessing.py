"""What networks see of a picture, against PIL, OpenCV and torchvision."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from zmagic.guidance.pictures.preprocessing import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resized_by_pil(image: Tensor, width: int, height: int, resample) -> Tensor:
    """Resize by PIL, channel by channel in floating point."""
    planes = [Image.fromarray(plane.numpy()) for plane in image[0]]
    return torch.stack(
        [torch.from_numpy(np.array(p.resize((width, height), resample))) for p in planes]
    )[None]


@pytest.mark.parametrize("size", [(32, 32), (20, 48), (100, 120)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_stretching_is_pils(size, interpolation):
    image = torch.rand(1, 3, 64, 96)
    result = Preprocessing(size, interpolation=interpolation).resized(image)
    resample = getattr(Image.Resampling, interpolation.upper())
    expected = resized_by_pil(image, size[1], size[0], resample)
    torch.testing.assert_close(result, expected, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("shape", [(64, 96), (97, 61), (40, 40), (30, 75), (32, 100)])
def test_cropping_is_torchvisions(shape):
    image = torch.rand(2, 3, *shape)
    result = Preprocessing((32, 32), fit="crop", interpolation="bicubic").resized(image)
    resized = vision.resize(image, [32], vision.InterpolationMode.BICUBIC, antialias=True)
    expected = vision.center_crop(resized, [32, 32])
    torch.testing.assert_close(result, expected, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("shape", [(64, 96), (97, 61), (40, 40), (30, 75), (16, 20)])
def test_padding_is_torchvisions(shape):
    """The longer side is scaled, black goes around the rest, as HPSv2 looks at pictures."""
    image = torch.rand(2, 3, *shape)
    result = Preprocessing((32, 32), fit="pad", interpolation="bicubic").resized(image)
    scaled = [round(side * 32 / max(shape)) for side in shape]
    resized = vision.resize(image, scaled, vision.InterpolationMode.BICUBIC, antialias=True)
    expected = vision.center_crop(resized, [32, 32])  # which pads what is too small
    torch.testing.assert_close(result, expected, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("size", [(20, 48), (48, 20)])
@pytest.mark.parametrize("shape", [(64, 96), (97, 61), (15, 15)])
def test_cropping_to_other_shapes_keeps_proportions(size, shape):
    rows = torch.linspace(0.0, 1.0, shape[0])[:, None].expand(shape)
    columns = torch.linspace(0.0, 1.0, shape[1]).expand(shape)
    image = torch.stack((rows * shape[0], columns * shape[1], rows))[None]  # in pixels
    result = Preprocessing(size, fit="crop").resized(image)
    assert result.shape == (1, 3, *size)
    middle = result[0, :2, size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4]
    down, right = middle[0].diff(dim=0).mean(), middle[1].diff(dim=1).mean()
    torch.testing.assert_close(down, right, rtol=0.05, atol=0.0)


def test_normalization_is_torchvisions():
    image = torch.rand(2, 3, 8, 9)
    result = Preprocessing((8, 9), MEAN, STD)(image)
    torch.testing.assert_close(result, vision.normalize(image, list(MEAN), list(STD)))


def test_channels_are_opencvs():
    image = torch.rand(1, 3, 8, 9)
    pixels = image[0].movedim(0, -1).numpy()
    gray = torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[None, None]
    torch.testing.assert_close(Preprocessing(None, channels="gray")(image), gray)
    reversed_channels = torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)).movedim(-1, 0)
    torch.testing.assert_close(Preprocessing(None, channels="bgr")(image)[0], reversed_channels)


def test_mean_and_std_are_in_the_networks_order():
    image = torch.rand(1, 3, 4, 4)
    result = Preprocessing(None, (0.1, 0.2, 0.3), (1.0, 2.0, 4.0), "bgr")(image)
    torch.testing.assert_close(result[:, 0], image[:, 2] - 0.1)
    torch.testing.assert_close(result[:, 2], (image[:, 0] - 0.3) / 4.0)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_a_picture_of_the_right_size_is_not_touched(fit):
    image = torch.rand(1, 3, 24, 24)
    assert Preprocessing((24, 24), fit=fit).resized(image) is image
    assert Preprocessing(None, fit=fit).resized(image) is image


@pytest.mark.parametrize("channels", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_gradients_arrive_unbroken(channels, fit):
    """Nothing is rounded and nothing clipped, far outside of [0, 1] either."""
    preprocessing = Preprocessing((6, 6), (0.5,), (0.25,), channels, fit)
    image = 3.0 * torch.randn(1, 3, 9, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(preprocessing, image, fast_mode=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": "RGB"}, "channels must be one of rgb, bgr, gray, got RGB"),
        ({"fit": "fill"}, "fit must be one of stretch, crop, pad, got fill"),
        ({"interpolation": "nearest"}, "interpolation must be one of bilinear, bicubic"),
        ({"mean": (0.1, 0.2)}, "mean must be 1 or 3 numbers, got 2"),
        ({"std": (0.1, 0.2, 0.3), "channels": "gray"}, "std must be 1 or 1 numbers, got 3"),
        ({"std": (0.1, 0.0, 0.3)}, "std must be positive"),
        ({"std": (float("nan"),)}, "std must be positive"),
    ],
)
def test_what_it_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing((8, 8), **arguments)


def test_an_input_without_a_size_of_its_own_is_said_where_one_is_needed():
    assert Preprocessing((32, 48)).input_size == (32, 48)
    with pytest.raises(ValueError, match="expected a network whose input has a fixed size"):
        _ = Preprocessing(None).input_size
