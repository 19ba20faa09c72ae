"""What a guided step consists of, at real sizes on the meta device: model, decoders, networks."""

from functools import cache

import open_clip
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.ldm.modules.attention import attention_pytorch
from comfy.ldm.modules.diffusionmodules.model import AttnBlock, pytorch_attention
from comfy.taesd.taesd import TAESD
from torch import Tensor, nn

from zmagic.guidance.networks.iresnet import LAYERS, IResNet
from zmagic.host.checkpointing import Call
from zmagic.host.decoders import choose_decoder, halved
from zmagic.host.gradients import differentiable_options
from zmagic.host.tiles import has_tiles, in_tiles

from .face_parser import BiSeNet
from .operations import META, Work, work_of
from .random_models import AUTOENCODER, Architecture

__all__ = [
    "NETWORKS",
    "decoder_module",
    "decoder_work",
    "decoders_of",
    "denoiser_work",
    "network_work",
]

# The host's choice on cards that have it.
DECODED_IN = torch.bfloat16


def denoiser_work(architecture: Architecture, control: nn.Module | None = None) -> Work:
    """One evaluation of the model on one picture: with CFG both halves, in one batch.

    Args:
        control: a ControlNet for that model on the meta device, which runs in each evaluation.
    """
    model = architecture.built(architecture.dtype, META).to(META)
    batch = 1 if architecture.cfg == 1.0 else 2
    x = _latent(architecture, torch.float32).expand(batch, -1, -1, -1)
    sigma = torch.ones(batch, device=META)
    conditioning = _on_meta(architecture, model, x.shape)
    options = {"transformer_options": {"optimized_attention_override": _attention}}
    transformer_options = differentiable_options(options)["transformer_options"]

    def denoise(x: Tensor) -> Tensor:
        given = {} if control is None else {"control": controls(x)}
        options = {"transformer_options": transformer_options, **given}
        return model.apply_model(x, sigma, **options, **conditioning)

    def controls(x: Tensor) -> dict:
        hint = torch.empty(batch, 3, architecture.side, architecture.side, device=META)
        seen = {"x": x, "hint": hint, "timesteps": sigma, "context": conditioning["c_crossattn"]}
        seen |= {"y": conditioning["y"]} if "y" in conditioning else {}
        return control(**{name: tensor.to(architecture.dtype) for name, tensor in seen.items()})

    return work_of(nn.ModuleList([model, control] if control else [model]), denoise, x)


def decoders_of(architecture: Architecture) -> list[str]:
    """The decoders that the host has for the latents of that architecture."""
    latent_format = architecture.family.latent_format()
    has = {
        "vae_half": True,
        "vae": True,
        "taesd": latent_format.taesd_decoder_name is not None,
        "linear_rgb": latent_format.latent_rgb_factors is not None,
    }
    return [name for name, exists in has.items() if exists]


def decoder_work(name: str, architecture: Architecture) -> Work:
    """One of the ``decoders_of`` an architecture on one picture."""
    if name == "linear_rgb":
        decoder = choose_decoder(name, None, architecture.family.latent_format())
        latent = _latent(architecture, torch.float32)
        return work_of(nn.Module(), lambda x: decoder.decode(lambda y: y, x), latent)
    return _decoder_work(name, architecture.channels, architecture.side)


@cache  # Flux and Z-Image have latents of the same shape
def _decoder_work(name: str, channels: int, side: int) -> Work:
    module = decoder_module(name, channels)
    latent = torch.empty(1, channels, side // 8, side // 8, dtype=DECODED_IN, device=META)
    seen = halved if name == "vae_half" else lambda z: z

    def tiled(z: Tensor, call: Call) -> Tensor:
        return in_tiles(module.decode, seen(z), call)

    several = has_tiles(seen(latent).shape)
    return work_of(module, lambda z: module.decode(seen(z)), latent, tiled if several else None)


def decoder_module(name: str, channels: int) -> nn.Module:
    """The network of ``vae``, ``vae_half`` or ``taesd``, as the host runs it on cards.

    Args:
        channels: of the latents.
    """
    with META:
        if name in ("vae", "vae_half"):
            layout = {**AUTOENCODER, "z_channels": channels}
            module = AutoencoderKL(ddconfig=layout, embed_dim=channels)
        else:
            module = TAESD(latent_channels=channels)
    for block in module.modules():
        if isinstance(block, AttnBlock):
            block.optimized_attention = pytorch_attention  # as the host chooses it on cards
    return module.to(DECODED_IN).eval().requires_grad_(False)


def network_work(name: str) -> Work:
    """One of the ``NETWORKS`` on one picture."""
    build, dtype, side = NETWORKS[name]
    with META:
        module = build().to(dtype).eval().requires_grad_(False)
    picture = torch.empty(1, 3, side, side, dtype=dtype, device=META)
    return work_of(module, module, picture)


def _clip() -> nn.Module:
    return open_clip.CLIP(**open_clip.get_model_config("ViT-L-14")).visual


def _recognizer() -> nn.Module:
    return IResNet(LAYERS[50])


class _Scores(BiSeNet):
    """The parser as it is run: its first output."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image)[0]


# The attribute networks that people have; conditions take them in turn.
NETWORKS = {
    "CLIP ViT-L-14": (_clip, torch.float16, 224),
    "ArcFace R50": (_recognizer, torch.float32, 112),
    "BiSeNet": (_Scores, torch.float32, 512),
}


def _latent(architecture: Architecture, dtype: torch.dtype) -> Tensor:
    side = architecture.side // 8
    return torch.empty(1, architecture.channels, side, side, dtype=dtype, device=META)


def _on_meta(architecture: Architecture, model: nn.Module, shape: torch.Size) -> dict:
    """The arguments that the host makes of a conditioning for its model, for a latent of shape."""
    [[tokens, values]] = architecture.conditioning(1)
    cpu = torch.device("cpu")
    made = model.extra_conds(
        cross_attn=tokens, noise=torch.empty(shape), device=cpu, prompt_type="positive", **values
    )
    sized = {name: cond.process_cond(batch_size=shape[0], area=None) for name, cond in made.items()}
    return {
        name: cond.cond.to(META) if isinstance(cond.cond, Tensor) else cond.cond
        for name, cond in sized.items()
    }


def _attention(kernel, *args, **kwargs) -> Tensor:
    """Torch's attention in place of the one that the host chose for this machine."""
    return attention_pytorch(*args, **kwargs)
