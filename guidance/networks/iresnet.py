"""IResNet, the network of most ArcFace recognizers: face crops to embeddings.

Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019, with the
improved residual unit of section 3.1 (batch norm, 3x3 convolution, batch norm, PReLU, 3x3
convolution, batch norm) and embedding head E (batch norm, dropout, fully connected, batch norm).
Its 18, 34, 50 and 100 layers differ in the number of units only. Units and widths are read from the
weights, so that narrower networks are taken too.

Weights come under their usual names (``conv1``, ``layer3.13.bn2``, ``fc``, ``features``) in two
forms: as trained, and as exported, with every batch norm that follows a convolution folded into it.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["LAYERS", "IResNet", "iresnet_from_weights"]

# Units in the four stages of the published depths.
LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}

# Channels of the four stages of all published depths. The stem has as many as the first stage.
STAGE_WIDTHS = (64, 128, 256, 512)

# The four stages halve the picture four times: the last map is the crop's side divided by this.
STRIDE = 16

# What data-parallel training and joint training with the margin head put before every name.
PREFIXES = ("module.", "backbone.", "net.")

# What a batch norm counts while it is trained; it plays no part in its result.
COUNTER = "num_batches_tracked"


class IResNet(nn.Module):
    """The network: normalized ``[B, 3, side, side]`` to embeddings ``[B, features]`` of any length.

    Args:
        units: the numbers of residual units in each of the four stages, see LAYERS.
        features: the length of the embedding.
        side: the side of the crops in pixels, a multiple of 16.
        folded: whether batch norms that follow a convolution are part of it.
        widths: the channels of each of the four stages.
    """

    def __init__(
        self,
        units: tuple[int, ...] = LAYERS[50],
        features: int = 512,
        side: int = 112,
        folded: bool = False,
        widths: tuple[int, ...] = STAGE_WIDTHS,
    ):
        super().__init__()
        self.side = side
        width = widths[0]
        self.conv1, self.bn1 = _convolution(3, width, 3, 1, folded)
        self.prelu = nn.PReLU(width)
        for number, (count, next_width) in enumerate(zip(units, widths, strict=True), 1):
            stage = [_Unit(width, next_width, 2, folded)]
            stage += [_Unit(next_width, next_width, 1, folded) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*stage))
            width = next_width
        self.bn2 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width * (side // STRIDE) ** 2, features)
        self.features = nn.BatchNorm1d(features)

    def forward(self, crops: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(crops)))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))


class _Unit(nn.Module):
    """The improved residual unit; its first one in a stage halves the picture."""

    def __init__(self, width_in: int, width: int, stride: int, folded: bool):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv1, self.bn2 = _convolution(width_in, width, 3, 1, folded)
        self.prelu = nn.PReLU(width)
        self.conv2, self.bn3 = _convolution(width, width, 3, stride, folded)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            convolution, norm = _convolution(width_in, width, 1, stride, folded)
            self.downsample = convolution if folded else nn.Sequential(convolution, norm)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(residual)) + self.downsample(x)


def _convolution(
    width_in: int, width: int, size: int, stride: int, folded: bool
) -> tuple[nn.Module, nn.Module]:
    """A convolution and the batch norm behind it, which is nothing where it is folded in."""
    convolution = nn.Conv2d(width_in, width, size, stride, size // 2, bias=folded)
    return convolution, nn.Identity() if folded else nn.BatchNorm2d(width)


@dataclass(frozen=True)
class _Form:
    """What the names and shapes of weights say about the network."""

    units: tuple[int, ...]
    features: int
    side: int
    folded: bool
    widths: tuple[int, ...]


def iresnet_from_weights(weights: Mapping[str, Tensor], name: str) -> IResNet:
    """Build the network of the weights, with them, in float32, ready to be evaluated.

    Args:
        weights: a state dict, in any floating point precision.
        name: the name of the file, for messages.

    Raises:
        ValueError: the weights are not those of an IResNet, or some are missing or too many.
    """
    weights = _plain_names(weights)
    form = _form(weights, name)
    with torch.inference_mode(False):  # weights shall be ordinary tensors
        with torch.device("meta"):  # no time for random weights that are replaced at once
            network = IResNet(form.units, form.features, form.side, form.folded, form.widths)
        _check(weights, network, name)
        network.load_state_dict(
            {key: _own(weights.get(key)) for key in network.state_dict()}, assign=True
        )
    return network.eval().requires_grad_(False)


def _own(tensor: Tensor | None) -> Tensor:
    """A copy in float32; a batch norm's counter of batches, which is not in the file, is 0."""
    return torch.tensor(0) if tensor is None else tensor.detach().float().clone()


def _plain_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes of training, and without its counters of batches."""
    prefix = next((p for p in PREFIXES if f"{p}conv1.weight" in weights), "")
    return {
        key.removeprefix(prefix): value
        for key, value in weights.items()
        if key.startswith(prefix) and not key.endswith(COUNTER)
    }


def _form(weights: Mapping[str, Tensor], name: str) -> _Form:
    found = [re.match(r"layer([1-4])\.(\d+)\.", key) for key in weights]
    units = [
        1 + max((int(m[2]) for m in found if m and int(m[1]) == stage), default=-1)
        for stage in range(1, 5)
    ]
    head = weights.get("fc.weight")
    last = [weights.get(f"layer{stage}.0.conv2.weight") for stage in range(1, 5)]
    matrices = [head, *last]
    if head is None or not all(units) or not all(_is_full_matrix(m) for m in matrices):
        raise ValueError(
            f"{name} does not hold the weights of an IResNet: expected tensors named conv1, "
            f"layer1.0 to layer4, bn2, fc and features, got {_examples(weights)}"
        )
    widths = tuple(kernel.shape[0] for kernel in last if kernel is not None)
    side = STRIDE * math.isqrt(head.shape[1] // widths[-1])
    return _Form(tuple(units), head.shape[0], side, "conv1.bias" in weights, widths)


def _check(weights: Mapping[str, Tensor], network: IResNet, name: str) -> None:
    """Raise ValueError unless names and shapes are the network's."""
    wanted = {
        key: value.shape for key, value in network.state_dict().items() if not key.endswith(COUNTER)
    }
    missing = sorted(wanted.keys() - weights.keys())
    unknown = sorted(weights.keys() - wanted.keys())
    if missing or unknown:
        raise ValueError(
            f"{name} is not an IResNet of a form that is known: "
            f"missing {_examples(missing)}, not expected {_examples(unknown)}"
        )
    for key, shape in wanted.items():
        if weights[key].shape != shape:
            raise ValueError(
                f"{name} is not an IResNet of a form that is known: expected {key} of shape "
                f"{list(shape)}, got {list(weights[key].shape)}"
            )


def _is_full_matrix(weight: Tensor | None) -> bool:
    return weight is not None and weight.ndim >= 2 and 0 not in weight.shape


def _examples(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    names = list(names)
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more if names else "none"
