"""ONNX files as they are published, as differentiable modules; slower than those of tests/onnx."""

import warnings

import pytest
import torch

from zmagic.guidance.networks import load_onnx

from ..onnx_reference import by_onnxruntime
from .derivatives import one_thread
from .published_segmenter import write_bisenet

NETWORKS = (
    "fr_age",
    "fr_detect",
    "fr_expression",
    "fr_eye",
    "fr_feature",
    "fr_gender",
    "fr_landmark",
    "fr_liveness",
    "fr_pose",
)


@pytest.fixture(autouse=True)
def _one_thread():
    """Use one thread: on networks this small a second one costs more than it brings."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def face_parser(tmp_path_factory):
    return write_bisenet(tmp_path_factory.mktemp("parser"), side=64)


@pytest.mark.parametrize("name", NETWORKS)
def test_published_networks_alone_and_in_a_batch(face_networks, name):
    path = face_networks / f"{name}.onnx"
    module = load_onnx(path)
    images = torch.randn(3, *module.input_shape[1:])
    expected = by_onnxruntime(path, images)
    assert module.input_shape[0] == 1 and len(module.outputs) == len(expected)
    with torch.no_grad():
        for count in (1, 3):
            for result, reference in zip(module(images[:count]), expected, strict=True):
                # Scores of up to 40 are sums of hundreds of products.
                torch.testing.assert_close(result, reference[:count], rtol=1e-5, atol=1e-5)


def test_published_face_parser(face_parser):
    """Operator set 20, shared weights behind Identity, a free batch, outputs that nobody needs."""
    module = load_onnx(face_parser, ["output"])
    assert module.batched and module.size == (64, 64) and module.outputs == ("output",)
    images = torch.randn(3, 3, 64, 64)
    (expected,) = by_onnxruntime(face_parser, images, ["output"])
    torch.testing.assert_close(module(images)[0], expected, rtol=0.0, atol=1e-4)
    assert not [p for p in module.parameters() if p.shape[:2] == (64, 128)]  # heads for training


def test_directional_derivative_of_a_published_network(face_networks):
    module = load_onnx(face_networks / "fr_landmark.onnx").double()
    image = torch.rand(2, 1, 64, 64, dtype=torch.float64, requires_grad=True)
    direction, cotangent = torch.randn_like(image), torch.randn(2, 136, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((module(image)[0] * cotangent).sum(), image)
    step = 1e-7  # shorter than the way to the next kink of a ReLU
    with torch.no_grad():
        ahead, behind = (module(image + s * direction)[0] for s in (step, -step))
    expected = ((ahead - behind) * cotangent).sum() / (2.0 * step)
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-5, atol=0.0)


def test_descent_on_pixels_reaches_the_chosen_class(face_networks):
    module = load_onnx(face_networks / "fr_eye.onnx")
    chosen = 1
    image = torch.rand(1, 1, 24, 24)
    before = module(image)[0].softmax(1)[0, chosen].item()
    for _ in range(10):
        image.requires_grad_(True)
        energy = -module(image)[0].log_softmax(1)[0, chosen]
        (gradient,) = torch.autograd.grad(energy, image)
        image = (image - 0.05 * gradient / gradient.abs().max()).detach()
    after = module(image)[0].softmax(1)[0, chosen].item()
    assert after > 0.99 or after > before + 0.5


def test_converters_do_not_talk(face_networks, face_parser):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in (face_parser, face_networks / "fr_detect.onnx"):
            module = load_onnx(path)
            module(torch.rand(1, *module.input_shape[1:]))
