"""LPIPS, version 0.1: how different two pictures look, by the features of a classifier.

Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018. The classifiers are torchvision's, up to their last map; the linear
heads, one weight for each channel of each map, are those that the authors' package has.

With ``f`` the vectors over the channels of a map divided by their length, and its head ``h``, the
published distance is ``sum over maps of mean over places of sum_c h_c (f_c - f'_c)^2``. Here a map
comes as ``sqrt(h) f``, so that the distance is that of plain vectors.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torchvision.models
from torch import Tensor, nn

__all__ = ["BACKBONES", "Lpips", "backbone_kind", "lpips_from_weights"]

# Added to |f|^2: a place without any activity has derivatives then. The published 1e-10 beside |f|
# leaves them undefined there; elsewhere both are the same to rounding.
QUIET = 1e-10

# The names of the heads: behind a dropout, as published, or without it.
HEAD = re.compile(r"lin(\d+)\.model\.[01]\.weight")

# What torchvision, and data-parallel training, put before the layers' numbers.
PREFIXES = ("features.", "module.features.", "")

# Names and channels that a message quotes.
QUOTED = 4


@dataclass(frozen=True)
class Backbone:
    """A classifier of torchvision.

    Attributes:
        make: makes it, with random weights.
        taps: the numbers of the layers behind which maps are compared.
        channels: the channels of these maps.
    """

    make: Callable[[], nn.Module]
    taps: tuple[int, ...]
    channels: tuple[int, ...]

    def layers(self) -> nn.Sequential:
        """The layers up to the last map, without weights."""
        with torch.device("meta"):
            classifier = self.make()
        features = classifier.get_submodule("features")
        layers = nn.Sequential(*list(features.children())[: self.taps[-1] + 1])
        for layer in layers.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # maps are read, and differentiated twice
        return layers


BACKBONES = {
    "AlexNet": Backbone(torchvision.models.alexnet, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256)),
    "VGG16": Backbone(torchvision.models.vgg16, (3, 8, 15, 22, 29), (64, 128, 256, 512, 512)),
    "SqueezeNet 1.1": Backbone(
        torchvision.models.squeezenet1_1,
        (1, 4, 7, 9, 10, 11, 12),
        (64, 128, 256, 384, 384, 512, 512),
    ),
}


class Lpips(nn.Module):
    """ImageNet-normalized ``[B, 3, h, w]`` to weighted unit maps, each ``[B, C, h', w']``.

    Args:
        layers: those of the classifier up to the last map.
        taps: the numbers of the layers behind which maps are compared.
        heads: the weights of each map's channels, ``[C]``, none below 0.
    """

    def __init__(self, layers: nn.Sequential, taps: tuple[int, ...], heads: list[Tensor]):
        super().__init__()
        self.layers = layers
        self.taps = taps
        for number, head in enumerate(heads):
            self.register_buffer(f"scale{number}", head.sqrt().view(1, -1, 1, 1))

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        maps: list[Tensor] = []
        x = pictures
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in self.taps:
                maps.append(_unit(x) * self.get_buffer(f"scale{len(maps)}"))
        return tuple(maps)


def _unit(x: Tensor) -> Tensor:
    """``x / |x|`` over the channels; the squares of half precision would overflow."""
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return x / (x.square().sum(1, keepdim=True) + QUIET).sqrt()


def backbone_kind(weights: Mapping[str, Tensor], name: str) -> str:
    """Tell which of BACKBONES a state dict is of.

    Args:
        weights: as torchvision names them.
        name: the name of the file, for messages.

    Raises:
        ValueError: it is of none of them.
    """
    for kind, backbone in BACKBONES.items():
        if _layers_in(weights, backbone.layers()) is not None:
            return kind
    some = ", ".join(list(weights)[:QUOTED]) or "none"
    raise ValueError(
        f"{name} holds the weights of no classifier that LPIPS knows: expected torchvision's "
        f"{', '.join(BACKBONES)}, with tensors named features.0.weight and so on, got {some}"
    )


def lpips_from_weights(
    weights: Mapping[str, Tensor], heads: Mapping[str, Tensor], name: str, heads_name: str
) -> Lpips:
    """Build the network of the weights, with them, in float32, ready to be evaluated.

    Args:
        weights: a state dict of one of BACKBONES as torchvision names it, with its classifier or
            without, in any floating point precision.
        heads: a state dict of the linear heads for it, as the authors' package has it.
        name, heads_name: the names of the files, for messages.

    Raises:
        ValueError: the weights are of none of these classifiers, or the heads are not for it.
    """
    kind = backbone_kind(weights, name)
    backbone = BACKBONES[kind]
    with torch.inference_mode(False), torch.no_grad():  # weights shall be ordinary tensors
        vectors = _heads(heads, heads_name)
        found = tuple(len(vector) for vector in vectors)
        if found != backbone.channels:
            raise ValueError(
                f"{heads_name} holds linear heads for {_kind_of(found)}, {name} is a {kind}: "
                "choose the heads that were made for it"
            )
        layers = backbone.layers()
        own = _layers_in(weights, layers) or {}
        layers.load_state_dict({k: v.detach().float().clone() for k, v in own.items()}, assign=True)
        return Lpips(layers, backbone.taps, vectors).eval().requires_grad_(False)


def _layers_in(weights: Mapping[str, Tensor], layers: nn.Sequential) -> dict[str, Tensor] | None:
    """The weights of the layers by their own names, None if they are not all there."""
    wanted = {key: value.shape for key, value in layers.state_dict().items()}
    for prefix in PREFIXES:
        found = {key: weights.get(prefix + key) for key in wanted}
        fitting = {k: v for k, v in found.items() if v is not None and v.shape == wanted[k]}
        if len(fitting) == len(wanted):
            return fitting
    return None


def _heads(weights: Mapping[str, Tensor], name: str) -> list[Tensor]:
    """The vectors ``[C]`` of the maps, in their order."""
    numbered = {int(m[1]): value for key, value in weights.items() if (m := HEAD.fullmatch(key))}
    vectors = [numbered[number].detach().float().flatten() for number in sorted(numbered)]
    if not vectors:
        some = ", ".join(list(weights)[:QUOTED]) or "none"
        raise ValueError(
            f"{name} holds no linear heads of LPIPS: expected tensors named "
            f"lin0.model.1.weight and so on, got {some}"
        )
    if min(float(vector.min()) for vector in vectors) < 0.0:
        raise ValueError(
            f"{name} holds weights below 0, with which more difference would be less distance: "
            "the heads of LPIPS have none. Take those of the package lpips"
        )
    return vectors


def _kind_of(channels: tuple[int, ...]) -> str:
    for kind, backbone in BACKBONES.items():
        if backbone.channels == channels:
            return kind
    return f"maps of {', '.join(map(str, channels))} channels"
