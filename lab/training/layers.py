"""Layers that the small networks share, made of operators that every ONNX reader knows."""

from torch import Tensor, nn

__all__ = ["Convolution", "Residual"]


class Convolution(nn.Sequential):
    """3 x 3 convolution, batch norm and ReLU."""

    def __init__(self, width_in: int, width: int, stride: int = 1, dilation: int = 1):
        super().__init__(
            nn.Conv2d(width_in, width, 3, stride, dilation, dilation, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )


class Residual(nn.Module):
    """Two convolutions and the way around them (He et al., ECCV 2016)."""

    def __init__(self, width: int, dilation: int = 1):
        super().__init__()
        self.first = Convolution(width, width, dilation=dilation)
        self.second = Convolution(width, width, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))
