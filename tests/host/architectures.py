"""Small real models: the host's own classes with random weights, as its loaders leave them.

Everything is made in inference mode, like in a prompt, so that weights and conditionings are
inference tensors. Nothing here imitates a host class.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import comfy.cldm.cldm
import comfy.clip_model
import comfy.controlnet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.taesd.taesd
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.ldm.wan.vae import WanVAE
from torch import Tensor, nn

CONTEXT = 16  # width of the text conditioning
POOLED = 32  # width of the pooled text conditioning


@dataclass
class Specimen:
    """A loaded model with conditionings and a latent that fit it."""

    patcher: comfy.model_patcher.ModelPatcher
    positive: list
    negative: list
    latent: Tensor  # [B, C, H, W] or [B, C, T, H, W]
    sigma: float  # a noise level in the middle of the model's range


def random_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight drawn anew, with variance 1 / fan-in, so that signals keep their size."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator)

    for name, weight in module.named_parameters():
        if weight.ndim > 1:
            weight.copy_(normal(weight) * weight[0].numel() ** -0.5)
        elif name.endswith("weight"):
            weight.copy_(1 + 0.02 * normal(weight))
        else:
            weight.copy_(0.02 * normal(weight))
    for name, buffer in module.named_buffers():
        if name.endswith("pos_embed"):
            buffer.copy_(0.1 * normal(buffer))
    return module


def conditioning(tokens: int = 8, seed: int = 1, **values) -> list:
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(1, tokens, CONTEXT, generator=generator), values]]


def pooled(seed: int = 1) -> Tensor:
    return torch.randn(1, POOLED, generator=torch.Generator().manual_seed(seed + 100))


def latent(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(200))


def patcher(model: nn.Module) -> comfy.model_patcher.ModelPatcher:
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.CoreModelPatcher(
        model, load_device=device, offload_device=torch.device("cpu")
    )


def _diffusion(family: type, config: dict, weights: torch.dtype, compute: torch.dtype | None):
    """The host's model of a family, as its loader makes it; ``compute`` None: as the weights."""
    return _build(family(config), weights, compute)


def with_operations(specimen: Specimen, operations: type) -> Specimen:
    """A specimen of the same family and sizes, its layers made by another pack's operations."""
    before = specimen.patcher.model.model_config
    model_config = type(before)(dict(before.unet_config))
    model_config.custom_operations = operations
    return replace(specimen, patcher=_build(model_config, torch.float32, None))


def _build(model_config, weights: torch.dtype, compute: torch.dtype | None):
    model_config.set_inference_dtype(weights, None if compute == weights else compute)
    model = model_config.get_model({}, "", device="cpu")
    random_weights(model.diffusion_model)
    return patcher(model)


def sd15(weights=torch.float32, compute=None) -> Specimen:
    config = dict(
        **dict(image_size=32, in_channels=4, out_channels=4, model_channels=32, legacy=False),
        **dict(channel_mult=[1, 2], num_res_blocks=[1, 1], use_spatial_transformer=True),
        **dict(transformer_depth=[1, 1], transformer_depth_output=[1, 1, 1, 1]),
        **dict(transformer_depth_middle=1, use_linear_in_transformer=False, context_dim=CONTEXT),
        **dict(use_temporal_attention=False, use_temporal_resblock=False, adm_in_channels=None),
    )
    model = _diffusion(comfy.supported_models.SD15, config, weights, compute)
    return Specimen(model, conditioning(), conditioning(seed=2), latent(2, 4, 8, 8), sigma=1.5)


def sdxl(weights=torch.float32, compute=None) -> Specimen:
    sizes = 6 * 256  # height, width, crop and target sizes, each embedded in 256 numbers
    config = dict(
        **dict(image_size=32, in_channels=4, out_channels=4, model_channels=32, legacy=False),
        **dict(channel_mult=[1, 2], num_res_blocks=[1, 1], use_spatial_transformer=True),
        **dict(transformer_depth=[0, 2], transformer_depth_output=[0, 0, 2, 2]),
        **dict(transformer_depth_middle=2, use_linear_in_transformer=True, context_dim=CONTEXT),
        **dict(use_temporal_attention=False, use_temporal_resblock=False),
        **dict(adm_in_channels=POOLED + sizes, num_classes="sequential", num_head_channels=32),
    )
    model = _diffusion(comfy.supported_models.SDXL, config, weights, compute)
    return Specimen(
        model,
        conditioning(pooled_output=pooled(), width=96, height=64, crop_w=8),
        conditioning(seed=2, pooled_output=pooled(2)),
        latent(1, 4, 8, 8),
        sigma=1.5,
    )


def sd3(weights=torch.float32, compute=None) -> Specimen:
    depth = 2
    embedder = dict(in_features=CONTEXT, out_features=64 * depth)
    config = dict(
        **dict(in_channels=16, out_channels=16, patch_size=2, depth=depth, input_size=None),
        **dict(adm_in_channels=POOLED, num_patches=1024, pos_embed_max_size=32, qk_norm="rms"),
        **dict(context_embedder_config={"target": "torch.nn.Linear", "params": embedder}),
        **dict(pos_embed_scaling_factor=None, x_block_self_attn_layers=[]),
    )
    model = _diffusion(comfy.supported_models.SD3, config, weights, compute)
    return Specimen(
        model,
        conditioning(pooled_output=pooled()),
        conditioning(seed=2, pooled_output=pooled(2)),
        latent(1, 16, 8, 8),
        sigma=0.6,
    )


def flux(weights=torch.float32, compute=None) -> Specimen:
    config = dict(
        **dict(image_model="flux", in_channels=16, out_channels=16, patch_size=2, qkv_bias=True),
        **dict(vec_in_dim=POOLED, context_in_dim=CONTEXT, hidden_size=64, mlp_ratio=4.0),
        **dict(num_heads=2, depth=1, depth_single_blocks=2, axes_dim=[8, 12, 12], theta=10000),
        **dict(guidance_embed=True, txt_ids_dims=[]),
    )
    model = _diffusion(comfy.supported_models.Flux, config, weights, compute)
    return Specimen(
        model,
        conditioning(pooled_output=pooled(), guidance=3.5),
        conditioning(seed=2, pooled_output=pooled(2)),
        latent(1, 16, 8, 8),
        sigma=0.6,
    )


def _lumina(family: type, weights: torch.dtype, compute: torch.dtype | None, **special):
    config = dict(
        **dict(image_model="lumina2", patch_size=2, in_channels=16, cap_feat_dim=CONTEXT),
        **dict(n_refiner_layers=1, qk_norm=True, n_heads=4, multiple_of=16),
        **dict(axes_lens=[300, 512, 512]),
        **special,
    )
    model = _diffusion(family, config, weights, compute)
    return Specimen(model, conditioning(), conditioning(seed=2), latent(1, 16, 8, 8), sigma=0.6)


def lumina2(weights=torch.float32, compute=None) -> Specimen:
    special = dict(dim=64, n_layers=2, n_kv_heads=2, axes_dims=[4, 6, 6])
    special |= dict(rope_theta=10000.0, ffn_dim_multiplier=4.0)
    return _lumina(comfy.supported_models.Lumina2, weights, compute, **special)


def z_image(weights=torch.float32, compute=None) -> Specimen:
    special = dict(dim=256, n_layers=1, n_kv_heads=4, axes_dims=[16, 24, 24])  # no smaller dim
    special |= dict(rope_theta=256.0, ffn_dim_multiplier=1.0, time_scale=1000.0)
    special |= dict(z_image_modulation=True, pad_tokens_multiple=32)
    return _lumina(comfy.supported_models.ZImage, weights, compute, **special)


def qwen_image(weights=torch.float32, compute=None) -> Specimen:
    config = dict(
        **dict(image_model="qwen_image", in_channels=64, out_channels=16, num_layers=2),
        **dict(attention_head_dim=32, num_attention_heads=2, joint_attention_dim=CONTEXT),
        **dict(axes_dims_rope=(8, 12, 12)),
    )
    model = _diffusion(comfy.supported_models.QwenImage, config, weights, compute)
    return Specimen(model, conditioning(), conditioning(seed=2), latent(1, 16, 1, 8, 8), sigma=0.6)


def wan(weights=torch.float32, compute=None) -> Specimen:
    config = dict(
        **dict(image_model="wan2.1", model_type="t2v", in_dim=16, out_dim=16, dim=64, ffn_dim=128),
        **dict(freq_dim=32, text_dim=CONTEXT, num_heads=2, num_layers=2),
    )
    model = _diffusion(comfy.supported_models.WAN21_T2V, config, weights, compute)
    return Specimen(model, conditioning(), conditioning(seed=2), latent(1, 16, 2, 4, 4), sigma=0.6)


def cosmos_predict2(weights=torch.float32, compute=None) -> Specimen:
    config = dict(
        **dict(image_model="cosmos_predict2", in_channels=16, out_channels=16, num_blocks=2),
        **dict(max_img_h=240, max_img_w=240, max_frames=128, patch_spatial=2, patch_temporal=1),
        **dict(model_channels=64, num_heads=2, crossattn_emb_channels=CONTEXT, mlp_ratio=4.0),
        **dict(concat_padding_mask=True, pos_emb_cls="rope3d", pos_emb_learnable=True),
        **dict(use_adaln_lora=True, adaln_lora_dim=16, rope_t_extrapolation_ratio=1.0),
    )
    model = _diffusion(comfy.supported_models.CosmosT2IPredict2, config, weights, compute)
    return Specimen(model, conditioning(), conditioning(seed=2), latent(1, 16, 1, 8, 8), sigma=1.5)


DIFFUSION: dict[str, Callable[..., Specimen]] = {
    build.__name__: build
    for build in (sd15, sdxl, sd3, flux, lumina2, z_image, qwen_image, wan, cosmos_predict2)
}


def kl_vae(channels: int = 4) -> comfy.sd.VAE:
    sizes = dict(
        z_channels=channels, resolution=256, in_channels=3, out_ch=3, ch=32, ch_mult=[1] * 4
    )
    extra = dict(double_z=True, num_res_blocks=1, attn_resolutions=[], dropout=0.0)
    params = dict(embed_dim=channels, ddconfig=sizes | extra)
    weights = random_weights(AutoencoderKL(**params)).state_dict()
    return comfy.sd.VAE(sd=dict(weights), config={"params": params})


def taesd() -> comfy.sd.VAE:
    weights = random_weights(comfy.taesd.taesd.TAESD(latent_channels=4)).state_dict()
    weights = {name: weight.clone() for name, weight in weights.items()}
    return comfy.sd.VAE(sd=weights | {"vae_scale": torch.ones(()), "vae_shift": torch.zeros(())})


def wan_vae() -> nn.Module:
    """The module alone: host's VAE wrapper accepts only full-size video decoders."""
    sizes = dict(dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[True])
    vae = WanVAE(**sizes, attn_scales=[], image_channels=3, conv_out_channels=3, dropout=0.0)
    return random_weights(vae)


def clip_vision() -> nn.Module:
    config = dict(
        **dict(model_type="clip_vision_model", hidden_size=32, num_attention_heads=2),
        **dict(num_hidden_layers=3, intermediate_size=64, hidden_act="quick_gelu"),
        **dict(num_channels=3, patch_size=8, image_size=32, projection_dim=16),
    )
    operations = comfy.ops.manual_cast
    model = comfy.clip_model.CLIPVisionModelProjection(config, torch.float32, "cpu", operations)
    return random_weights(model)


def control_network(unet_config: dict, **options) -> comfy.cldm.cldm.ControlNet:
    """The network of a ControlNet for a UNet of that configuration, as its class makes it."""
    config = dict(unet_config)
    for name in ("out_channels", "transformer_depth_output", "use_temporal_attention"):
        config.pop(name, None)
    config.pop("use_temporal_resblock", None)
    config |= {"hint_channels": 3, "operations": comfy.ops.disable_weight_init, **options}
    return comfy.cldm.cldm.ControlNet(**config)


def control_net(specimen: Specimen) -> comfy.controlnet.ControlNet:
    """A ControlNet for a UNet specimen, whose hint is a picture of 8 pixels per latent pixel."""
    net = control_network(specimen.patcher.model.model_config.unet_config, device="cpu")
    device = comfy.model_management.get_torch_device()
    control = comfy.controlnet.ControlNet(random_weights(net, seed=3), load_device=device)
    height, width = (8 * size for size in specimen.latent.shape[-2:])
    return control.set_cond_hint(torch.rand(1, 3, height, width), strength=1.0)
