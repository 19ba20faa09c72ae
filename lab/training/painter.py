"""The networks of the diffusion model: the host's UNet, and the host's text model of CLIP."""

import torch
from torch import Tensor, nn

from zmagic.scripts.headless import load_host

load_host()

from comfy.clip_model import CLIPTextModel  # noqa: E402
from comfy.k_diffusion.sampling import get_sigmas_karras, sample_dpmpp_2m  # noqa: E402
from comfy.ldm.modules.attention import attention_pytorch  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from comfy.model_sampling import EPS, ModelSamplingDiscrete  # noqa: E402

from zmagic.host.demo_model import (  # noqa: E402
    KNOWN_WORDS,
    TEXT_CONFIG,
    UNET_CONFIG,
    WORD_VECTORS,
    DemoPortraits,
    with_whole_vocabulary,
)

__all__ = [
    "KNOWN_WORDS",
    "TEXT_CONFIG",
    "WORD_VECTORS",
    "Painter",
    "Schedule",
    "TrainingLayers",
    "empty_text_encoder",
    "empty_unet",
    "get_sigmas_karras",
    "sample_dpmpp_2m",
    "with_whole_vocabulary",
]


class _Embedding(nn.Embedding):
    def forward(self, tokens: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
        return super().forward(tokens)


class _LayerNorm(nn.LayerNorm):
    """Keeps a copy of what it saw: the host's text model adds to its numbers in place."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clone())


class TrainingLayers:
    """PyTorch's layers under the names that the host's model asks for: with initial values."""

    Conv1d, Conv2d, Conv3d = nn.Conv1d, nn.Conv2d, nn.Conv3d
    Linear, Embedding, GroupNorm, LayerNorm = nn.Linear, _Embedding, nn.GroupNorm, _LayerNorm

    @staticmethod
    def conv_nd(dimensions: int, *arguments, **options) -> nn.Module:
        return {2: nn.Conv2d, 3: nn.Conv3d}[dimensions](*arguments, **options)


class Schedule(ModelSamplingDiscrete, EPS):
    """SD1.5's levels of noise as the host has them, for a network that predicts the noise."""


class Painter(nn.Module):
    """The UNet and the text encoder that it listens to."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.text = empty_unet(), empty_text_encoder()

    def forward(self, noisy: Tensor, level: Tensor, tokens: Tensor) -> Tensor:
        """The noise in latents ``[B, 16, h, w]`` at levels ``[B]``, told by tokens ``[B, 77]``."""
        options = {"optimized_attention_override": _fused_attention}
        context = self.text(tokens)[0]
        return self.unet(noisy, level.float(), context=context, transformer_options=options).float()


def empty_unet() -> nn.Module:
    """The host's network, starting as the identity: branches end in zeros."""
    unet = UNetModel(
        **UNET_CONFIG,
        **DemoPortraits.unet_extra_config,
        dtype=torch.float32,
        device="cpu",
        operations=TrainingLayers,
    )
    for name, module in unet.named_modules():
        if name.endswith(("proj_out", "out_layers.3")) or name == "out.2":
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return unet


def empty_text_encoder() -> nn.Module:
    """The host's network; a word that no caption has stays zero, and says nothing."""
    text = CLIPTextModel(TEXT_CONFIG, torch.float32, "cpu", TrainingLayers)
    for table in text.text_model.embeddings.children():
        nn.init.normal_(table.weight, std=0.02)
    return text


def _fused_attention(_, *arguments, **options) -> Tensor:
    """Run PyTorch's attention: what the host takes on a CPU saves memory, not time."""
    return attention_pytorch(*arguments, **options)
