"""Depth Anything 3 and MoGe of the host: estimates of geometry, with gradients.

Both are taken as ComfyUI has loaded them; its own preprocessing is done here without rounding.
"""

from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn

from ..guidance.pictures.preprocessing import Preprocessing
from .networks import Network

__all__ = ["PATCH", "Estimator", "depth_anything", "moge"]

# Side in pixels of the patches that both are made of.
PATCH = 14

# Colors of their training; MoGe has them inside.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Depths below this are rounding; units are about the size of the scene.
LEAST_DEPTH = 1e-4


@dataclass(frozen=True, eq=False)
class Estimator:
    """A network of geometry for pictures of any size, called with pictures in [0, 1].

    Attributes:
        network: from pixels ``[B, 3, h, w]``, whole patches in each direction, to a map of this
            size.
        side: the longer side in pixels at which it looks at pictures.
        mean, std: of the colors that it takes.
    """

    network: Network
    side: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def networks(self) -> tuple[Network, ...]:
        """The network it runs on; see the Energy protocol."""
        return (self.network,)

    def __call__(self, image: Tensor) -> Tensor:
        """The map ``[B, C, h, w]`` of ``image [B, 3, H, W]``."""
        return self.network(self.view(image))

    def view(self, image: Tensor) -> Tensor:
        """The network's input for a picture: all of it, its shape kept up to whole patches."""
        scale = self.side / max(image.shape[-2:])
        height, width = (max(1, round(s * scale / PATCH)) * PATCH for s in image.shape[-2:])
        return Preprocessing((height, width), self.mean, self.std, interpolation="bicubic")(image)

    def of_reference(self, pictures: Tensor) -> Tensor:
        """The map of pictures ``[R, 3, h, w]`` outside sampling, once per content."""
        return self.network.reference(self, pictures, key=self.side)


def depth_anything(model: Any, side: int) -> Estimator:
    """Nearness ``[B, 1, h, w]`` by Depth Anything 3.

    Args:
        model: what Load Depth Anything 3 puts out.
        side: see Estimator.

    Raises:
        ValueError: it is something else.
    """
    network = getattr(getattr(model, "model", None), "diffusion_model", None)
    if type(network).__name__ != "DepthAnything3Net":
        raise ValueError(
            "'da3_model' must be what Load Depth Anything 3 puts out, got another model"
        )
    dtype = network.dtype or torch.float32
    return Estimator(
        Network(_DepthAnything(network), "Depth Anything 3", dtype, patcher=model),
        side,
        MEAN,
        STD,
    )


def moge(model: Any, side: int, *, normals: bool = False) -> Estimator:
    """Nearness ``[B, 1, h, w]`` by MoGe, or normals ``[B, 3, h, w]`` as Normals takes them.

    Args:
        model: what Load MoGe Model puts out.
        side: see Estimator.

    Raises:
        ValueError: it is something else, or gives no normals, as the first MoGe.
    """
    network: Any = getattr(model, "model", None)
    if not type(network).__name__.startswith("MoGeModel"):
        raise ValueError("'moge_model' must be what Load MoGe Model puts out, got another model")
    if normals and not hasattr(network, "normal_head"):
        raise ValueError(
            "'moge_model' gives no normals: load a file of MoGe 2 that has 'normal' in its name"
        )
    module = _MoGeNormals(network) if normals else _MoGe(network)
    # In half precision a CPU cannot resize; weights are cast to whatever comes in.
    on_cpu = comfy.model_management.is_device_cpu(model.load_device)
    dtype = torch.float32 if on_cpu else model.dtype
    return Estimator(Network(module, "MoGe", dtype, patcher=model.patcher), side)


class _DepthAnything(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        depth = self.network(pixels)["depth"]  # [B, h, w]
        return _nearness(depth)


class _MoGe(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        # Without the offset that ComfyUI fits to a camera afterwards: it has no gradient.
        return _nearness(self.network(pixels, num_tokens=_tokens(pixels))["points"][..., 2])


class _MoGeNormals(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels, num_tokens=_tokens(pixels))["normal"].movedim(-1, 1)


def _tokens(pixels: Tensor) -> int:
    return (pixels.shape[-2] // PATCH) * (pixels.shape[-1] // PATCH)


def _nearness(depth: Tensor) -> Tensor:
    """``[B, h, w]`` to ``[B, 1, h, w]`` in single precision or better, which far things need."""
    depth = depth if depth.dtype == torch.float64 else depth.float()
    return 1.0 / depth[:, None].clamp_min(LEAST_DEPTH)
