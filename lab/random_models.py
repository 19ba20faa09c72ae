"""Models of the sizes that people have, with random weights, under the host's memory management.

What a step costs depends on the shapes alone; what it makes means nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.taesd.taesd import TAESD
from torch import nn

__all__ = ["ARCHITECTURES", "FLUX", "SD15", "SDXL", "Z_IMAGE", "Architecture", "random_model"]


@dataclass(frozen=True)
class Architecture:
    """A published diffusion model: what its class is built from, and how people run it.

    Args:
        title: shown in reports.
        family: the host's description of it.
        config: configuration of its network, as ComfyUI finds it in a file.
        side: side of the pictures it was made for, in pixels.
        tokens, width: number and width of the tokens of its text conditioning.
        pooled: width of the pooled text conditioning, 0 for none.
        cfg: classifier-free guidance; 1 leaves the unconditional half out.
        dtype: precision of the weights that people have.
        channels: channels of its latent.
    """

    title: str
    family: type
    config: dict
    side: int
    tokens: int
    width: int
    pooled: int
    cfg: float
    dtype: torch.dtype
    channels: int = 4
    values: dict = field(default_factory=dict)  # more of a conditioning

    def conditioning(self, seed: int) -> list:
        """A CONDITIONING of random numbers."""
        generator = torch.Generator().manual_seed(seed)
        values = dict(self.values)
        if self.pooled:
            values["pooled_output"] = torch.randn(1, self.pooled, generator=generator)
        return [[torch.randn(1, self.tokens, self.width, generator=generator), values]]

    def built(self, dtype: torch.dtype, device: torch.device):
        """The host's model, its weights not yet filled."""
        config = self.family(dict(self.config))
        config.set_inference_dtype(dtype, None)
        return config.get_model({}, "", device=device)

    def parameters(self) -> int:
        """Return how many numbers its network has."""
        model = self.built(self.dtype, torch.device("meta"))
        return sum(parameter.numel() for parameter in model.diffusion_model.parameters())


SD15 = Architecture(
    "SD1.5",
    comfy.supported_models.SD15,
    {
        "image_size": 32,
        "use_spatial_transformer": True,
        "legacy": False,
        "adm_in_channels": None,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 320,
        "num_res_blocks": [2, 2, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth_middle": 1,
        "use_linear_in_transformer": False,
        "context_dim": 768,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
    },
    side=512,
    tokens=77,
    width=768,
    pooled=0,
    cfg=7.0,
    dtype=torch.float16,
)
SDXL = Architecture(
    "SDXL",
    comfy.supported_models.SDXL,
    {
        "image_size": 32,
        "use_spatial_transformer": True,
        "legacy": False,
        "num_classes": "sequential",
        "adm_in_channels": 2816,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 320,
        "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "channel_mult": [1, 2, 4],
        "transformer_depth_middle": 10,
        "use_linear_in_transformer": True,
        "context_dim": 2048,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
    },
    side=1024,
    tokens=77,
    width=2048,
    pooled=1280,
    cfg=7.0,
    dtype=torch.float16,
    values={"width": 1024, "height": 1024},
)
FLUX = Architecture(
    "Flux",
    comfy.supported_models.Flux,
    {
        "image_model": "flux",
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "vec_in_dim": 768,
        "context_in_dim": 4096,
        "hidden_size": 3072,
        "mlp_ratio": 4.0,
        "num_heads": 24,
        "depth": 19,
        "depth_single_blocks": 38,
        "axes_dim": [16, 56, 56],
        "theta": 10000,
        "qkv_bias": True,
        "guidance_embed": True,
        "txt_ids_dims": [],
    },
    side=1024,
    tokens=256,
    width=4096,
    pooled=768,
    cfg=1.0,
    dtype=torch.bfloat16,
    channels=16,
    values={"guidance": 3.5},
)
Z_IMAGE = Architecture(
    "Z-Image",
    comfy.supported_models.ZImage,
    {
        "image_model": "lumina2",
        "patch_size": 2,
        "in_channels": 16,
        "cap_feat_dim": 2560,
        "dim": 3840,
        "n_layers": 30,
        "n_refiner_layers": 2,
        "n_heads": 30,
        "n_kv_heads": 30,
        "qk_norm": True,
        "axes_dims": [32, 48, 48],
        "axes_lens": [1536, 512, 512],
        "rope_theta": 256.0,
        "ffn_dim_multiplier": 8.0 / 3.0,
        "z_image_modulation": True,
        "time_scale": 1000.0,
        "pad_tokens_multiple": 32,
    },
    side=1024,
    tokens=128,
    width=2560,
    pooled=0,
    cfg=1.0,
    dtype=torch.bfloat16,
    channels=16,
)
ARCHITECTURES = (SD15, SDXL, FLUX, Z_IMAGE)

# The autoencoder of all of them.
AUTOENCODER = {
    "double_z": True,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def random_model(architecture: Architecture, dtype: torch.dtype, device: torch.device):
    """A MODEL of that architecture, whose weights are made on ``device``."""
    with torch.inference_mode():
        model = architecture.built(dtype, device)
        fill(model.diffusion_model)
    return comfy.model_patcher.CoreModelPatcher(
        model,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def random_autoencoder(channels: int, width: int = 128) -> comfy.sd.VAE:
    """The host's VAE of SD's layout; its encoder, which guidance never runs, is all zeros.

    Args:
        channels: channels of the latent.
        width: width of the decoder's last layers; 128 as published.
    """
    config = {**AUTOENCODER, "z_channels": channels}

    def made() -> nn.Module:
        decoder = {**config, "ch": width}
        return AutoencoderKL(ddconfig=config, decoder_ddconfig=decoder, embed_dim=channels)

    return comfy.sd.VAE(sd=_weights(made))


def random_taesd(channels: int) -> comfy.sd.VAE:
    """The host's VAE of TAESD's layout and size."""
    with torch.inference_mode():
        scale = {"vae_scale": torch.ones(()), "vae_shift": torch.zeros(())}
        weights = _weights(lambda: TAESD(latent_channels=channels))
        return comfy.sd.VAE(sd=weights | scale)


def _weights(make: Callable[[], nn.Module]) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        module = make()
        for name, weight in module.state_dict().items():
            if "encoder" in name:
                weight.zero_()
        fill(module, lambda name: "encoder" not in name)
        return {name: weight.clone() for name, weight in module.state_dict().items()}


def fill(module: nn.Module, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Random weights where they are, with variance 1 / fan-in, so that signals keep their size."""
    generators: dict[torch.device, torch.Generator] = {}
    for name, parameter in module.named_parameters():
        if not wanted(name):
            continue
        device = parameter.device
        if device not in generators:
            generators[device] = torch.Generator(device).manual_seed(0)
        if parameter.ndim > 1:
            mean, spread = 0.0, parameter[0].numel() ** -0.5
        else:
            mean, spread = float(not name.endswith("bias")), 0.02
        parameter.normal_(mean, spread, generator=generators[device])
