"""Convolutions with constant weights: their derivatives are autograd's own."""

import pytest
import torch
import torch.nn.functional as F

from zmagic.host.frozen_layers import convolution

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@pytest.mark.parametrize("axes", CONVOLUTIONS)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding, dilation, groups", [(0, 1, 1), (1, 1, 2), (2, 2, 1)])
@pytest.mark.parametrize("size", [7, 8, 9])  # some of which the strides do not reach to the end
def test_both_derivatives(axes, stride, padding, dilation, groups, size):
    convolve = CONVOLUTIONS[axes]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    x = random(2, 4, *[size] * axes).requires_grad_()
    weight = random(6, 4 // groups, *[3] * axes)
    expected = convolve(x, weight, None, **options)
    g = random(*expected.shape).requires_grad_()
    (gradient,) = torch.autograd.grad(expected, x, g.detach())

    ours = convolution(convolve, (x, weight, None), options)
    assert torch.equal(ours, expected)
    (again,) = torch.autograd.grad(ours, x, g, create_graph=True)
    torch.testing.assert_close(again, gradient)
    h = random(*x.shape)
    (second,) = torch.autograd.grad(again, g, h)
    torch.testing.assert_close(second, convolve(h, weight, None, **options))
