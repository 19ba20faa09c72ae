"""Image towers for similarity: OpenCLIP's, and every CLIP_VISION of the host, DINO and SigLIP too.

Each is looked at in two ways: as a whole, by one embedding, and patch by patch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import comfy.clip_vision
from torch import Tensor, nn

from ..guidance.energies.image_similarity import Patches, reference_patches
from ..guidance.pictures.preprocessing import Preprocessing
from ..guidance.pictures.regions import reference_view
from .networks import Network
from .openclip import OpenClip

__all__ = ["SimilarityTower", "tower_of_clip_vision", "tower_of_openclip"]

# Side in pixels at which DINO is published to look at pictures; it can look at any other.
DINO_SIDE = 224

# Side of the square that a SigLIP of any size gets: as many patches as it is published to take.
FLEXIBLE_SIDE = 256


@dataclass(frozen=True, eq=False)
class SimilarityTower:
    """An image tower.

    Attributes:
        name: what messages call it.
        preprocessing: the way from a picture to its input.
        whole: from preprocessed pixels ``[B, 3, h, w]`` to embeddings ``[B, D]``.
        patches: from them to features of the patches, tokens ``[B, N, C]`` or maps.
        any_size: whether it can look at pictures of any size.
    """

    name: str
    preprocessing: Preprocessing
    whole: Network
    patches: Network
    any_size: bool = False

    def embeddings(self, pictures: Tensor, mask: Tensor | None) -> Tensor:
        """Encode references as wholes, outside sampling: ``[R, D]``; see OpenClip.embeddings."""
        given = (pictures,) if mask is None else (pictures, mask)
        return self.whole.reference(
            lambda x, m=None: self.whole(reference_view(x, m, self.preprocessing)[0]),
            *given,
            key=("whole", self.preprocessing),
        )

    def reference_patches(self, pictures: Tensor, mask: Tensor | None, weights: Tensor) -> Patches:
        """Encode the patches of references, outside sampling; see ``PatchSimilarity``."""
        given = (pictures, weights) if mask is None else (pictures, weights, mask)

        def encoded(x: Tensor, w: Tensor, m: Tensor | None = None) -> Patches:
            views, counts = reference_view(x, m, self.preprocessing)
            return reference_patches(self.patches(views), w, counts)

        return self.patches.reference(encoded, *given, key=("patches", self.preprocessing))


def tower_of_openclip(openclip: OpenClip) -> SimilarityTower:
    """The image tower of Load OpenCLIP; patches are the features after its last block."""
    return _kept(openclip, 0, lambda: _made_of_openclip(openclip))


def tower_of_clip_vision(
    clip_vision: comfy.clip_vision.ClipVisionModel, side: int = 0
) -> SimilarityTower:
    """A CLIP_VISION of the host: CLIP, SigLIP, DINOv2 or DINOv3.

    Args:
        side: of the square in pixels at which a tower of any size looks; 0: as it is published.

    Raises:
        ValueError: it is of another type.
    """
    return _kept(clip_vision, side, lambda: _made_of_clip_vision(clip_vision, side))


# Made once of each, so that references are encoded once; they live as long as what they are of,
# which the host drops.
_made: WeakKeyDictionary[object, dict[int, SimilarityTower]] = WeakKeyDictionary()


def _kept(of: object, side: int, make: Callable[[], SimilarityTower]) -> SimilarityTower:
    towers = _made.setdefault(of, {})
    if side not in towers:
        towers[side] = make()
    return towers[side]


def _made_of_openclip(openclip: OpenClip) -> SimilarityTower:
    image = openclip.image
    return SimilarityTower(
        openclip.name,
        openclip.preprocessing,
        image,
        Network(_Last(openclip.tap(None)), image.name, image.dtype, patcher=image.patcher),
    )


def _made_of_clip_vision(
    clip_vision: comfy.clip_vision.ClipVisionModel, side: int
) -> SimilarityTower:
    kind = clip_vision.model_type
    if kind not in _KINDS:
        raise ValueError(
            f"'clip_vision' must be one of {', '.join(_KINDS)}, got a model of type {kind}"
        )
    model, shape = clip_vision.model, _KINDS[kind]
    whole, patches = (
        Network(_Tokens(model, take), "CLIP_VISION", patcher=clip_vision.patcher)
        for take in (shape.whole, shape.patches)
    )
    fixed = max(clip_vision.image_size, 0)
    size = (side or shape.side or fixed) if shape.side else fixed
    return SimilarityTower(
        f"the connected CLIP_VISION ({kind})",
        Preprocessing(
            size=(_in_patches(size, clip_vision),) * 2,
            mean=tuple(clip_vision.image_mean),
            std=tuple(clip_vision.image_std),
            fit=shape.fit,
            interpolation="bicubic",
        ),
        whole,
        patches,
        any_size=bool(shape.side),
    )


@dataclass(frozen=True)
class _Kind:
    """How to look at a type of tower.

    Attributes:
        whole, patches: take them from the tower and its pixels.
        fit: how it is published to fit pictures to its square, see Preprocessing.
        side: of that square in pixels where it can be any; 0: the file's own.
    """

    whole: Callable[[Any, Tensor], Tensor]
    patches: Callable[[Any, Tensor], Tensor]
    fit: str
    side: int = 0


def _clip_whole(model: Any, pixels: Tensor) -> Tensor:
    """The pooled token; projections are left out, which not every file has."""
    return model.vision_model(pixels)[2]


def _clip_patches(model: Any, pixels: Tensor) -> Tensor:
    return model.vision_model.post_layernorm(model.vision_model(pixels)[0][:, 1:])


def _siglip_whole(model: Any, pixels: Tensor) -> Tensor:
    """The mean of the patches: the host does not load the head that pools them."""
    return _siglip_patches(model, pixels).mean(1)


def _siglip_patches(model: Any, pixels: Tensor) -> Tensor:
    return model.vision_model(pixels)[0]


def _dino_whole(model: Any, pixels: Tensor) -> Tensor:
    return model(pixels)[2]


def _dino2_patches(model: Any, pixels: Tensor) -> Tensor:
    return model(pixels)[0][:, 1:]


def _dino3_patches(model: Any, pixels: Tensor) -> Tensor:
    """Without the class token and the registers behind it."""
    return model(pixels)[0][:, 1 + model.embeddings.register_tokens.shape[1] :]


_KINDS = {
    "clip_vision_model": _Kind(_clip_whole, _clip_patches, "crop"),
    "siglip_vision_model": _Kind(_siglip_whole, _siglip_patches, "stretch"),
    "siglip2_vision_model": _Kind(_siglip_whole, _siglip_patches, "stretch", FLEXIBLE_SIDE),
    "dinov2": _Kind(_dino_whole, _dino2_patches, "crop", DINO_SIDE),
    "dinov3": _Kind(_dino_whole, _dino3_patches, "stretch", DINO_SIDE),
}


class _Tokens(nn.Module):
    """What ``take`` takes from a tower of the host, as a network."""

    def __init__(self, model: nn.Module, take: Callable[[Any, Tensor], Tensor]):
        super().__init__()
        self.model = model
        self.take = take

    def forward(self, pixels: Tensor) -> Tensor:
        return self.take(self.model, pixels)


class _Last(nn.Module):
    """The last result of a network that has several."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels)[-1]


def _in_patches(side: int, clip_vision: comfy.clip_vision.ClipVisionModel) -> int:
    """A side in whole patches, at least one."""
    patch = int(clip_vision.config.get("patch_size", 14))
    return max(1, round(side / patch)) * patch
