"""Pose networks for one person: SDPose as the host has loaded it, and heat maps of ONNX files."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import comfy.model_management
import torch
from torch import Tensor, nn

from ..guidance.poses.maps import points_of_maps, points_of_rows
from .image_networks import ImageNetwork, example
from .networks import Network, load_networks

__all__ = ["SDPOSE_STEP", "onnx_finder", "outside_sampling", "sdpose_finder"]

Result = TypeVar("Result")

# Step of the height of SDPose's pictures in pixels: of its multiples, and of three quarters of
# them, each level of the network makes an even half.
SDPOSE_STEP = 256

# Channels of the features that SDPose's head reads, the last ones of so many.
FEATURES = 640


@dataclass(frozen=True, eq=False)
class _SdPose:
    """SDPose: the picture's latent, one pass of a diffusion network, and a head of heat maps."""

    encoder: Network
    network: Network
    size: tuple[int, int]
    points: int

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks it runs on; see the Energy protocol."""
        return (self.encoder, self.network)

    def __call__(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """See PointFinder."""
        return points_of_maps(self.network(self.encoder(crops)), self.size, ends_meet=True)


@dataclass(frozen=True, eq=False)
class _OnnxPose:
    """A network whose outputs are heat maps, or scores along x and along y (SimCC)."""

    network: ImageNetwork
    size: tuple[int, int]
    points: int
    outputs: tuple[int, ...]

    @property
    def networks(self) -> tuple[Network, ...]:
        """The network it runs on; see the Energy protocol."""
        return self.network.networks

    def __call__(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """See PointFinder."""
        found = self.network(crops)
        read = points_of_maps if len(self.outputs) == 1 else points_of_rows
        return read(*(found[i] for i in self.outputs), self.size)


def sdpose_finder(model: Any, vae: Any, side: int) -> _SdPose:
    """SDPose.

    Args:
        model: the MODEL of its checkpoint, as the host's loader puts it out.
        vae: the VAE of the same checkpoint.
        side: the longer side in pixels at which it looks at a person, three quarters as wide.

    Raises:
        ValueError: the model is no SDPose, or the VAE another one.
    """
    inner = getattr(model, "model", None)
    head = getattr(getattr(inner, "diffusion_model", None), "heatmap_head", None)
    if head is None:
        raise ValueError(
            "'sdpose_model' must be SDPose: load its checkpoint of "
            "https://huggingface.co/Comfy-Org/SDPose, got a model without heat maps"
        )
    channels = inner.latent_format.latent_channels
    if vae.latent_channels != channels:
        raise ValueError(
            f"'sdpose_vae' must be the one of SDPose's checkpoint, with {channels} latent "
            f"channels; this one has {vae.latent_channels}"
        )
    encoder = Network(_Encoder(vae), "SDPose's VAE", vae.vae_dtype, patcher=vae.patcher)
    network = Network(_HeatMaps(inner), "SDPose", inner.get_dtype_inference(), patcher=model)
    height = max(1, round(side / SDPOSE_STEP)) * SDPOSE_STEP
    return _SdPose(encoder, network, (height, height * 3 // 4), head.final_layer.out_channels)


def onnx_finder(network: ImageNetwork) -> _OnnxPose:
    """A network from an ONNX file.

    Raises:
        ValueError: its outputs are neither heat maps nor scores along x and along y.
    """
    found = example(network)
    size = network.preprocessing.input_size
    maps = [i for i, output in enumerate(found) if output.ndim == 4 and min(output.shape[2:]) > 1]
    if len(maps) == 1:
        return _OnnxPose(network, size, found[maps[0]].shape[1], tuple(maps))
    rows = [i for i, output in enumerate(found) if output.ndim == 3]
    if len(rows) == 2 and _are_sides([found[i] for i in rows], size):
        return _OnnxPose(network, size, found[rows[0]].shape[1], tuple(rows))
    shapes = ", ".join(str(list(output.shape)) for output in found)
    raise ValueError(
        "'pose_network' must put out a heat map for each key point [1, K, h, w] (HRNet, ViTPose), "
        "or scores along x and along y [1, K, w] and [1, K, h] (RTMPose, SimCC); "
        f"{network.path.name} puts out {shapes}"
    )


def outside_sampling(finder: _SdPose | _OnnxPose, compute: Callable[[], Result]) -> Result:
    """What ``compute`` returns, which calls a finder of this module on references."""
    load_networks(finder.networks)
    with torch.inference_mode(False), torch.no_grad():
        return compute()


def _are_sides(outputs: list[Tensor], size: tuple[int, int]) -> bool:
    """Whether the lengths of two outputs ``[1, K, length]`` are in the ratio of width to height."""
    rows, columns = outputs
    same = rows.shape[1] == columns.shape[1]
    return same and rows.shape[2] * size[0] == columns.shape[2] * size[1]


class _Encoder(nn.Module):
    """Pixels in [0, 1] to the VAE's latent, as the host's VAE encodes them."""

    def __init__(self, vae: Any):
        super().__init__()
        self.vae = vae.first_stage_model
        self.process_input = vae.process_input

    def forward(self, pixels: Tensor) -> Tensor:
        return self.vae.encode(self.process_input(pixels.clone()))


class _HeatMaps(nn.Module):
    """A latent to heat maps, as the host's SDPose Keypoint Extractor reads them."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.context = _context()

    def forward(self, latent: Tensor) -> Tensor:
        model, features = self.model, []

        def keep(hidden: Tensor, skipped: Tensor, _options: dict) -> tuple[Tensor, Tensor]:
            if hidden.shape[1] == FEATURES:
                features.append(hidden)
            return hidden, skipped

        latent = model.process_latent_in(latent)
        context = self.context.to(latent.device)
        conds = model.extra_conds(cross_attn=context, device=latent.device, noise=latent)
        given = {name: _repeated(cond.cond, len(latent)) for name, cond in conds.items()}
        # It looks at a picture as at the first step of a sampling.
        sigma = latent.new_full((len(latent),), float(model.model_sampling.sigma_max))
        options = {"patches": {"output_block_patch": [keep]}}
        model.apply_model(latent, sigma.float(), transformer_options=options, **given)
        head = model.diffusion_model.heatmap_head
        # Its last steps work in place, on what must be kept for the gradient.
        return head.final_layer(head.conv_layers(head.deconv_layers(features[-1].clone())))


def _repeated(value: Tensor, count: int) -> Tensor:
    return value.expand(count, *value.shape[1:]) if isinstance(value, Tensor) else value


def _context() -> Tensor:
    """The text that SDPose is conditioned on: none, as the host has it."""
    from comfy_extras.nodes_lotus import LotusConditioning

    ((context, _),) = LotusConditioning.execute().result[0]
    with torch.inference_mode(False):
        return context.detach().to(comfy.model_management.unet_offload_device(), copy=True)
