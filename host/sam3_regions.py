"""Regions by prompt: what a text names, in the picture while it is made, by SAM 3 of the host."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..guidance.pictures.preprocessing import Preprocessing
from .networks import Network

__all__ = ["Sam3Finder", "sam3_finder"]


@dataclass(frozen=True)
class _Prompt:
    """One thing that is looked for: its text's tokens ``[1, T, D]``, which of them count, and how
    many of it at most."""

    tokens: Tensor
    mask: Tensor
    most: int


@dataclass(frozen=True, eq=False)
class Sam3Finder:
    """A RegionFinder: all that SAM 3 finds of several prompts, together.

    Attributes:
        network: from pixels, tokens and their mask to scores ``[B, Q]`` and mask logits
            ``[B, Q, h, w]``.
        preprocessing: of pictures, to the size that the network takes.
        prompts: what is looked for.
        threshold: how certain it has to be, in [0, 1].
        sought: see RegionFinder.
    """

    network: Network
    preprocessing: Preprocessing
    prompts: tuple[_Prompt, ...]
    threshold: float
    sought: str

    @property
    def networks(self) -> tuple[Network, ...]:
        """The network it runs on; see the Energy protocol."""
        return (self.network,)

    def __call__(self, image: Tensor) -> Tensor:
        """See RegionFinder; pictures are looked at one by one, as the host does."""
        return torch.stack([self._in_picture(picture) for picture in image.split(1)])

    def _in_picture(self, picture: Tensor) -> Tensor:
        """Where any of the prompts is in ``[1, 3, H, W]``: ``[H, W]`` of 0 and 1."""
        pixels = self.preprocessing(picture.clamp(0.0, 1.0).float())
        found = picture.new_zeros(picture.shape[-2:])
        for prompt in self.prompts:
            tokens, mask = (x.to(picture.device) for x in (prompt.tokens, prompt.mask))
            scores, logits = self.network(pixels, tokens, mask)
            chances = scores[0].sigmoid()
            kept = chances.argsort(descending=True)[: prompt.most]
            kept = kept[chances[kept] > self.threshold]
            if len(kept):
                large = F.interpolate(
                    logits[:, kept], size=picture.shape[-2:], mode="bilinear", align_corners=False
                )
                found = torch.maximum(found, (large[0] > 0.0).any(0).to(found))
        return found


def sam3_finder(model: Any, conditioning: Sequence, threshold: float, sought: str) -> Sam3Finder:
    """SAM 3.

    Args:
        model: the MODEL of its checkpoint, as the host's loader puts it out.
        conditioning: what CLIP Text Encode makes of the prompt by the checkpoint's own CLIP.
        threshold: how certain it has to be, in [0, 1].
        sought: what reports call it.

    Raises:
        ValueError: the model is no SAM 3, or the conditioning that of another text encoder.
    """
    inner: Any = getattr(model, "model", None)
    detector = getattr(getattr(inner, "diffusion_model", None), "detector", None)
    if detector is None or not hasattr(inner.diffusion_model, "forward_segment"):
        raise ValueError(
            "'sam3_model' must be SAM 3: load its checkpoint of "
            "https://huggingface.co/Comfy-Org, got another model"
        )
    side = detector.backbone["vision_backbone"].trunk.img_size
    width = detector.backbone["language_backbone"]["resizer"].in_features
    network = Network(_Sam3(inner.diffusion_model), "SAM 3", inner.get_dtype(), patcher=model)
    prompts = _prompts(conditioning, width)
    return Sam3Finder(network, Preprocessing((side, side)), prompts, threshold, sought)


def _prompts(conditioning: Sequence, width: int) -> tuple[_Prompt, ...]:
    """The prompts in a CONDITIONING; several, separated by commas, are in its further values."""
    tokens, values = conditioning[0][0], conditioning[0][1]
    alone = {"cond": tokens, "attention_mask": values.get("attention_mask"), "max_detections": 1}
    made = []
    for entry in values.get("sam3_multi_cond") or [alone]:
        tokens, mask = entry["cond"], entry["attention_mask"]
        if tokens.shape[-1] != width:
            raise ValueError(
                "'conditioning' must be made by the CLIP of SAM 3's own checkpoint, whose tokens "
                f"have {width} numbers; these have {tokens.shape[-1]}"
            )
        mask = torch.ones(tokens.shape[:2], dtype=torch.int64) if mask is None else mask
        with torch.inference_mode(False), torch.no_grad():
            made.append(_Prompt(tokens.float().clone(), mask.clone(), entry["max_detections"]))
    return tuple(made)


class _Sam3(nn.Module):
    """SAM 3 as a function of tensors, as the host's SAM3 Detect calls it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model(pixels, text_embeddings=tokens, text_mask=mask)
        return found["scores"], found["masks"]
