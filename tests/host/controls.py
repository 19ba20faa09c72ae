"""Small controls of the kinds that the host loads, with random weights, for its specimens."""

from collections.abc import Callable

import comfy.cldm.cldm
import comfy.controlnet
import comfy.latent_formats
import comfy.ldm.flux.controlnet
import comfy.model_management
import comfy.ops
import comfy.sd
import torch
from torch import Tensor

from zmagic.lab.operations import META
from zmagic.lab.random_models import Architecture

from . import architectures
from .architectures import Specimen, random_weights

__all__ = ["CONTROLS", "control_net_of", "hint_of", "with_control"]

OPERATIONS = comfy.ops.disable_weight_init


def hint_of(specimen: Specimen) -> Tensor:
    """A picture ``[1, 3, 8 H, 8 W]`` of random pixels for latents of ``H x W``."""
    height, width = (8 * size for size in specimen.latent.shape[-2:])
    generator = torch.Generator().manual_seed(9)
    return torch.rand(1, 3, height, width, generator=generator)


def with_control(specimen: Specimen, control: comfy.controlnet.ControlBase) -> tuple[list, list]:
    """Both conditionings with a control, as the node Apply ControlNet leaves them."""
    return tuple(
        [[cond, {**values, "control": control, "control_apply_to_uncond": False}]]
        for ((cond, values),) in (specimen.positive, specimen.negative)
    )


def control_net_of(kind: Architecture) -> comfy.cldm.cldm.ControlNet:
    """The network of a ControlNet of real size, on the meta device, for a UNet."""
    config = kind.built(kind.dtype, META).model_config.unet_config
    net = architectures.control_network(config, dtype=kind.dtype, device=META)
    return net.requires_grad_(False)


def control_net(specimen: Specimen) -> comfy.controlnet.ControlNet:
    """A ControlNet, for UNets."""
    return architectures.control_net(specimen)


def chained(specimen: Specimen) -> comfy.controlnet.ControlNet:
    """Two, of which the second acts on top of the first at half its strength."""
    first, second = control_net(specimen), control_net(specimen)
    second.set_cond_hint(1 - second.cond_hint_original, strength=0.5)
    return second.set_previous_controlnet(first)


def control_lora(specimen: Specimen) -> comfy.controlnet.ControlLora:
    """A ControlNet that shares the model's weights, up to factors of rank 2 of its own."""
    weights = {"lora_controlnet": torch.tensor([])}
    generator = torch.Generator().manual_seed(7)
    for key, weight in control_net(specimen).control_model.state_dict().items():
        own = key.startswith(("input_hint_block", "zero_convs", "middle_block_out"))
        name, _, kind = key.rpartition(".")
        if own:
            weights[key] = weight.clone()
        elif kind == "weight" and weight.ndim > 1:
            up, down = (weight.shape[0], 2), (2, weight[0].numel())
            for part, shape in (("up", up), ("down", down)):
                factor = torch.randn(shape, generator=generator)
                weights[f"{name}.{part}"] = 0.3 * factor * shape[1] ** -0.5
    control = comfy.controlnet.ControlLora(weights)
    return control.set_cond_hint(hint_of(specimen), strength=1.0)


def flux_control_net(specimen: Specimen) -> comfy.controlnet.ControlNet:
    """A ControlNet for Flux, whose hint the VAE encodes in its first evaluation."""
    config = dict(specimen.patcher.model.model_config.unet_config)
    config.pop("image_model")
    net = comfy.ldm.flux.controlnet.ControlNetFlux(
        latent_input=True, control_latent_channels=16, operations=OPERATIONS, **config
    )
    control = comfy.controlnet.ControlNet(
        random_weights(net, seed=3),
        compression_ratio=1,
        latent_format=comfy.latent_formats.Flux(),
        load_device=comfy.model_management.get_torch_device(),
        extra_conds=["y", "guidance"],
    )
    return control.set_cond_hint(
        hint_of(specimen), strength=1.0, vae=architectures.kl_vae(channels=16)
    )


CONTROLS: dict[str, tuple[str, Callable[[Specimen], comfy.controlnet.ControlBase]]] = {
    "SD1.5": ("sd15", control_net),
    "SDXL": ("sdxl", control_net),
    "two in a chain": ("sd15", chained),
    "control LoRA": ("sdxl", control_lora),
    "Flux": ("flux", flux_control_net),
}
