"""The host's own CLIP_VISION and CLIP as OpenCLIP: no second copy of either in memory.

The host's preprocessing rounds to 8 bits, which has no gradient, so pictures are prepared by ours.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import comfy.clip_model
import comfy.clip_vision
import comfy.sd
import comfy.sd1_clip
import torch
from comfy.ldm.modules.attention import optimized_attention_for_device
from safetensors import safe_open
from torch import Tensor, nn

from ..guidance.pictures.preprocessing import Preprocessing
from ..guidance.wording import encodable
from .networks import Network
from .openclip import OpenClip
from .unread_text import unread_end

__all__ = ["openclip_from_host"]


def openclip_from_host(
    clip_vision: comfy.clip_vision.ClipVisionModel, clip: comfy.sd.CLIP | None
) -> OpenClip:
    """Make an OpenClip of the image tower of ``clip_vision`` and, if given, the texts of ``clip``.

    Raises:
        ValueError: the image tower is not a CLIP with a projection, or ``clip`` has no text tower
            with a projection into the same space.
    """
    model = clip_vision.model
    projection = getattr(model, "visual_projection", None)
    if clip_vision.model_type != "clip_vision_model" or not isinstance(projection, nn.Module):
        raise ValueError(
            f"'clip_vision' must be a CLIP image tower with a projection, got a model of "
            f"type {clip_vision.model_type}; load other towers from open_clip's own weights"
        )
    if not _is_trained(projection.weight):
        raise ValueError(
            "the file of 'clip_vision' has no weights for its projection; use a complete "
            "CLIP vision model"
        )
    width = projection.weight.shape[0]
    patcher = clip_vision.patcher
    return OpenClip(
        name="the connected CLIP_VISION",
        image=Network(_Tower(model), "CLIP_VISION", patcher=patcher),
        preprocessing=Preprocessing(
            size=(clip_vision.image_size,) * 2,
            mean=tuple(clip_vision.image_mean),
            std=tuple(clip_vision.image_std),
            fit="crop",
            interpolation="bicubic",
        ),
        tap=lambda blocks: _Blocks(model.vision_model, blocks),
        texts=None if clip is None else _texts_of(clip, width),
    )


class _Tower(nn.Module):
    """The host's image tower as a network that returns the projected embedding."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(pixel_values=pixels)[2]


class _Blocks(nn.Module):
    """The host's image tower up to the tokens after some of its blocks, or after each of them."""

    def __init__(self, vision: nn.Module, blocks: tuple[int, ...] | None):
        super().__init__()
        self.vision = vision
        self.blocks = range(len(vision.encoder.layers)) if blocks is None else blocks

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """``[B, N, C]`` for each block, without the class token."""
        attention = optimized_attention_for_device(pixels.device, mask=False, small_input=True)
        tokens = self.vision.pre_layrnorm(self.vision.embeddings(pixels))
        after = {}
        for block, layer in enumerate(self.vision.encoder.layers[: max(self.blocks) + 1]):
            tokens = layer(tokens, None, attention)
            if block in self.blocks:
                after[block] = tokens[:, 1:].clone()  # the next layer writes into its input
        return tuple(after[block] for block in self.blocks)


def _texts_of(clip: comfy.sd.CLIP, width: int) -> "_Texts":
    parts = list(_clip_parts(clip))
    fitting = [part for part in parts if _width(part[1]) == width]
    if not fitting:
        found = ", ".join(str(_width(part)) for _, part in parts)
        has = f"one of {found} dimensions" if found else "no CLIP text tower"
        raise ValueError(
            f"'clip' must have the text tower that was trained with 'clip_vision', which "
            f"embeds in {width} dimensions, got {has}"
        )
    key, part = fitting[0]
    if not _is_trained(part.transformer.text_projection.weight) or _file_lacks(clip, width):
        raise ValueError(
            "the text tower in 'clip' has no projection to compare texts with pictures, "
            "as in SD1.5 and SDXL checkpoints for CLIP-L; load the complete text encoder with "
            "'Load CLIP', or leave 'clip_vision' open and use open_clip's own weights"
        )
    return _Texts(clip, key, part)


def _clip_parts(clip: comfy.sd.CLIP) -> Iterator[tuple[str, nn.Module]]:
    """CLIP text towers of the host's text encoder, with the key of their tokens: l, g or h."""
    for name, part in clip.cond_stage_model.named_children():
        if not isinstance(part, comfy.sd1_clip.SDClipModel):
            continue
        if isinstance(part.transformer, comfy.clip_model.CLIPTextModel):
            yield name.removeprefix("clip_"), part


def _width(part: Any) -> int:
    return part.transformer.text_projection.weight.shape[0]


def _is_trained(weight: Tensor) -> bool:
    """Whether a projection holds weights; without any, zeros, an identity or old memory are there.

    A trained one has next to no zeros, even in 8 bits.
    """
    weight = weight.detach().float()
    return bool(weight.isfinite().all()) and weight.count_nonzero().item() > 0.5 * weight.numel()


def _file_lacks(clip: comfy.sd.CLIP, width: int) -> bool:
    """Whether the files of ``clip`` are known and none has a text projection of this width.

    What the host leaves in a projection that the file does not have may be uninitialized memory.
    """
    origin = clip.patcher.cached_patcher_init
    if origin is None:
        return False
    paths = [origin[1][0]] if isinstance(origin[1][0], str) else list(origin[1][0])
    if not all(str(path).endswith(".safetensors") for path in paths):
        return False
    return not any(_has_projection(path, width) for path in paths)


def _has_projection(path: str, width: int) -> bool:
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if "text_projection" in name]  # noqa: SIM118
        return any(width in file.get_slice(name).get_shape() for name in names)


class _Texts:
    """Prompts to embeddings by a CLIP text tower of the host."""

    def __init__(self, clip: comfy.sd.CLIP, key: str, part: Any):
        self.clip = clip
        self.key = key
        self.part = part
        self.network = Network(part, "CLIP", patcher=clip.patcher)

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """``[P, D]`` in float32."""
        return self.network.reference(
            lambda: torch.cat([self._embedding(prompt) for prompt in prompts]), key=tuple(prompts)
        )

    def unread(self, prompt: str) -> str:
        """The end of a prompt that is not in the tokens, empty if all of it is."""
        return unread_end(prompt, lambda text: tuple(map(_number, self._tokens(text)[0])))

    def _tokens(self, prompt: str) -> list:
        """One section of tokens: of several the host embeds a prompt by the first alone."""
        return self.clip.tokenize(encodable(prompt))[self.key][:1]

    def _embedding(self, prompt: str) -> Tensor:
        tokens = self._tokens(prompt)
        device = self.clip.patcher.load_device
        # SD1.5's encoder returns the embedding before the projection unless told otherwise.
        self.part.reset_clip_options()
        self.part.set_clip_options({"projected_pooled": True, "execution_device": device})
        try:
            _, pooled = self.part.encode_token_weights(tokens)[:2]
        finally:
            self.part.reset_clip_options()
        return pooled.float().cpu().clone()


def _number(token: tuple) -> int | None:
    """The number of a token; None for an embedding that a file of the host's holds."""
    return token[0] if isinstance(token[0], int) else None
