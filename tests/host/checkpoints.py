"""A checkpoint file of the SD1.5 architecture that the host's stock loader takes: random weights.

The UNet has one level, the autoencoder is a TAESD, the text encoder has its full size, which the
host prescribes; torch.save keeps strides, so that a matrix made of shifted copies of one short
vector takes little room on disk.
"""

import json
from pathlib import Path

import comfy.clip_model
import comfy.ops
import comfy.sd1_clip
import comfy.supported_models
import comfy.taesd.taesd
import torch
from torch import Tensor

from .architectures import control_network, random_weights

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [1],
    "channel_mult": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [1, 1],
    "transformer_depth_middle": -2,
    "context_dim": 768,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "use_checkpoint": False,
    "adm_in_channels": None,
    "legacy": False,
}
LATENT_SCALE = 0.18215


def write_sd15(folder: Path, name: str = "random_sd15.ckpt") -> Path:
    """Write the checkpoint into ``folder`` (about 50 MB) and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {**_unet(), **autoencoder(), **_text_encoder()}
    torch.save(weights, folder / name)
    return folder / name


def _unet() -> dict[str, Tensor]:
    config = comfy.supported_models.SD15(UNET)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device="cpu").diffusion_model
    with torch.no_grad():
        random_weights(model)
    return {
        f"model.diffusion_model.{key}": value.half() for key, value in model.state_dict().items()
    }


def control_net_weights() -> dict[str, Tensor]:
    """The weights of a ControlNet for the checkpoint's UNet, as a file of its own has them."""
    config = comfy.supported_models.SD15(UNET)
    net = control_network(config.unet_config, dtype=torch.float32, device="cpu")
    with torch.no_grad():
        random_weights(net, seed=3)
    return {key: value.half() for key, value in net.state_dict().items()}


def autoencoder() -> dict[str, Tensor]:
    """The weights of a TAESD as a checkpoint of SD1.5 or SD2 has them."""
    model = comfy.taesd.taesd.TAESD(latent_channels=4)
    with torch.no_grad():
        random_weights(model, seed=11)
    weights = {**model.state_dict(), "vae_scale": torch.tensor(LATENT_SCALE)}
    weights["vae_shift"] = torch.tensor(0.0)
    return {f"first_stage_model.{key}": value.float() for key, value in weights.items()}


def _text_encoder() -> dict[str, Tensor]:
    config = json.loads(
        (Path(comfy.sd1_clip.__file__).parent / "sd1_clip_config.json").read_text("utf-8")
    )
    model = comfy.clip_model.CLIPTextModel(
        config, torch.float32, "meta", comfy.ops.disable_weight_init
    )
    generator = torch.Generator().manual_seed(5)
    return {
        f"cond_stage_model.transformer.{key}": _compact(key, value.shape, generator)
        for key, value in model.state_dict().items()
    }


def _compact(key: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if len(shape) == 1:
        return torch.full(shape, float("norm" in key and key.endswith("weight"))).half()
    spread = 0.05 if "embedding" in key else shape[1] ** -0.5
    short = torch.randn(sum(shape), generator=generator) * spread
    return short.half().as_strided(shape, (1, 1))
