"""The face parser that everybody uses: BiSeNet on a ResNet-18.

Yu et al., "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation", ECCV 2018.
The layers are those of the published face parsers of 19 classes, whose spatial path is the first
half of the ResNet; so are operator set, names, and the two outputs for training.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

__all__ = ["CLASSES", "BiSeNet"]

CLASSES = 19


class ConvBlock(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class AttentionRefinement(nn.Module):
    """Weighs channels by what the whole picture shows."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.block = ConvBlock(inputs, outputs)
        self.attention = nn.Sequential(
            nn.Conv2d(outputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x)
        return x * self.attention(whole(x))


class FeatureFusion(nn.Module):
    """Joins the two paths."""

    def __init__(self, channels: int):
        super().__init__()
        self.block = ConvBlock(channels, channels, kernel=1)
        self.squeeze = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.excite = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.block(torch.cat((detail, context), dim=1))
        return x + x * self.excite(self.squeeze(whole(x)).relu()).sigmoid()


class Head(nn.Sequential):
    """Gives class scores at the size of the features that it reads."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__(ConvBlock(inputs, hidden), nn.Conv2d(hidden, CLASSES, 1, bias=False))


class BiSeNet(nn.Module):
    """``image [B, 3, h, w] -> three maps [B, 19, h, w]``, the last two for training only."""

    def __init__(self):
        super().__init__()
        self.backbone = resnet18(weights=None)
        self.refine16, self.refine32 = AttentionRefinement(256, 128), AttentionRefinement(512, 128)
        self.after16, self.after32 = ConvBlock(128, 128), ConvBlock(128, 128)
        self.average = ConvBlock(512, 128, kernel=1)
        self.fusion = FeatureFusion(256)
        self.head, self.head16, self.head32 = Head(256, 256), Head(128, 64), Head(128, 64)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        net = self.backbone
        x = net.maxpool(net.relu(net.bn1(net.conv1(image))))
        eighth = net.layer2(net.layer1(x))
        sixteenth = net.layer3(eighth)
        last = net.layer4(sixteenth)
        average = enlarged(self.average(whole(last)), last)
        context32 = self.after32(enlarged(self.refine32(last) + average, sixteenth))
        context16 = self.after16(enlarged(self.refine16(sixteenth) + context32, eighth))
        scores = self.head(self.fusion(eighth, context16))
        maps = (scores, self.head16(context16), self.head32(context32))
        return tuple(
            F.interpolate(m, image.shape[2:], mode="bilinear", align_corners=True) for m in maps
        )


def whole(x: Tensor) -> Tensor:
    """The average over the picture, whose size the export fixes."""
    return F.avg_pool2d(x, [int(side) for side in x.shape[2:]])


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="nearest")
