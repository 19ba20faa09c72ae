"""A plain open_clip model for the energies of texts, styles and similarity."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..pictures.preprocessing import Preprocessing

__all__ = ["DEFAULTS", "OpenClipTowers", "VisionBlocks", "preprocessing_of"]

# The keys of open_clip's preprocessing, and what it does where a model does not say: mean and
# standard deviation of OpenAI's weights, the shorter side scaled and the center cut out.
DEFAULTS = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
# How open_clip calls what our preprocessing calls a fit.
FITS = {"shortest": "crop", "squash": "stretch", "longest": "pad"}


class OpenClipTowers:
    """Both towers of a model of open_clip, with the preprocessing that belongs to it.

    Energies are made of its parts:

        towers = OpenClipTowers(model, tokenizer)
        Text(towers.image, towers.preprocessing, towers.texts(["a watercolor"]), torch.ones(1))
        Style.of(towers.after_blocks(3), towers.preprocessing, pictures)

    Args:
        model: the model that ``open_clip.create_model`` returns. It is frozen and set to
            evaluation.
        tokenizer: the one that ``open_clip.get_tokenizer`` returns: texts to tokens ``[P, L]``.

    Raises:
        ValueError: open_clip fits pictures to the model in a way that ``Preprocessing`` does not
            know.
    """

    def __init__(self, model: nn.Module, tokenizer: Callable[[list[str]], Tensor]):
        self.model: Any = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        visual: Any = self.model.visual
        self.preprocessing = preprocessing_of(
            visual.image_size, getattr(visual, "preprocess_cfg", {})
        )

    def image(self, pixels: Tensor) -> Tensor:
        """Compute embeddings ``[B, D]`` of preprocessed pictures ``[B, 3, h, w]``."""
        return self.model.encode_image(self._like_weights(pixels))

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Compute embeddings ``[P, D]`` of P prompts, without gradients."""
        tokens = self.tokenizer(list(prompts))
        return self.model.encode_text(tokens.to(self._weight.device))

    @torch.no_grad()
    def pictures(self, pictures: Tensor) -> Tensor:
        """Compute embeddings ``[R, D]`` of reference pictures ``[R, 3, h, w]`` in [0, 1]."""
        return self.image(self.preprocessing(pictures))

    def after_blocks(self, *blocks: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """The image tower up to its features after ``blocks``, counted from 1.

        Returns:
            a function of preprocessed pictures ``[B, 3, h, w]``, whose results are maps
            ``[B, C, h', w']``, one for each block.
        """
        tapped = VisionBlocks(self.model.visual, tuple(block - 1 for block in blocks))
        return lambda pixels: tapped(self._like_weights(pixels))

    @property
    def _weight(self) -> Tensor:
        return next(self.model.parameters())

    def _like_weights(self, pixels: Tensor) -> Tensor:
        return pixels.to(self._weight)


class VisionBlocks(nn.Module):
    """An image tower of open_clip up to the features after some of its blocks.

    Args:
        visual: the image tower of an open_clip model.
        blocks: the blocks after which features are returned, from 0; None: all.
    """

    def __init__(self, visual: nn.Module, blocks: tuple[int, ...] | None):
        super().__init__()
        self.visual: Any = visual
        self.blocks = None if blocks is None else list(blocks)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """``[B, 3, h, w]`` to maps ``[B, C, h', w']``, without the class token."""
        result = self.visual.forward_intermediates(
            pixels, indices=self.blocks, stop_early=True, intermediates_only=True
        )
        return tuple(result["image_intermediates"])


def preprocessing_of(size: int | tuple[int, int], config: Mapping[str, Any]) -> Preprocessing:
    """Make the preprocessing that open_clip has for an image tower.

    Args:
        size: the side of the tower's input, or its height and width, in pixels.
        config: open_clip's names and values, those of DEFAULTS where it has none.

    Raises:
        ValueError: it fits pictures in a way that ``Preprocessing`` does not know.
    """
    known = {**DEFAULTS, **config}
    fit = FITS.get(known["resize_mode"])
    if fit is None:
        raise ValueError(
            f"open_clip resizes pictures for this model by {known['resize_mode']!r}, expected one "
            f"of {', '.join(FITS)}"
        )
    return Preprocessing(
        size=(size, size) if isinstance(size, int) else (size[0], size[1]),
        mean=tuple(known["mean"]),
        std=tuple(known["std"]),
        fit=fit,
        interpolation=known["interpolation"],
    )
