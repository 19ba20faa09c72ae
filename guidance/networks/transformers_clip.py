"""CLIP weights as the package transformers keeps them, under the names that open_clip has for them.

The same network is published in either layout: transformers has queries, keys and values apart and
projections transposed. PickScore and OpenAI's CLIP on the Hugging Face hub are kept in its layout.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

__all__ = ["from_transformers", "is_transformers_clip"]

# The towers' prefixes, transformers' and those of an open_clip model with separate towers.
VISION, TEXT = "vision_model.", "text_model."
PREFIXES = {VISION: "visual.", TEXT: "text."}

# Names outside the blocks, each with the tower it is in.
NAMES = {
    VISION: {
        "embeddings.class_embedding": "class_embedding",
        "embeddings.patch_embedding.weight": "conv1.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "pre_layrnorm": "ln_pre",
        "post_layernorm": "ln_post",
    },
    TEXT: {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm": "ln_final",
    },
}

# Parts of a block.
BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
BLOCKS = "encoder.layers."

# Projections, which transformers has as layers: their matrices are those of open_clip transposed.
PROJECTIONS = {
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text.text_projection",
}

# Numbers of places, which some files hold and no model needs.
PLACES = "position_ids"


def is_transformers_clip(names: Iterable[str]) -> bool:
    """Whether these are the names of both towers of a CLIP in transformers' layout."""
    names = set(names)
    return all(any(name.startswith(tower) for name in names) for tower in PREFIXES)


def from_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a ``CLIPModel`` to those of open_clip's ``CustomTextCLIP``.

    Names that are not those of such a model stay as they are.

    Raises:
        ValueError: a block's attention is incomplete.
    """
    renamed: dict[str, Tensor] = {}
    attention: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.items():
        if name in PROJECTIONS:
            renamed[PROJECTIONS[name]] = value.t()
        elif ".self_attn." in name and ".out_proj." not in name:
            block, _, part = name.partition(".self_attn.")
            attention.setdefault(block, {})[part] = value
        elif not name.endswith(PLACES):
            renamed[_renamed(name)] = value
    for block, parts in attention.items():
        for kind in ("weight", "bias"):
            renamed[f"{_block(block)}.attn.in_proj_{kind}"] = _joined(block, parts, kind)
    return renamed


def _joined(block: str, parts: Mapping[str, Tensor], kind: str) -> Tensor:
    """Queries, keys and values of an attention as one matrix or bias, in this order."""
    names = [f"{part}_proj.{kind}" for part in "qkv"]
    missing = [name for name in names if name not in parts]
    if missing:
        raise ValueError(f"the weights {', '.join(missing)} of {block} are missing")
    return torch.cat([parts[name] for name in names])


def _renamed(name: str) -> str:
    for tower, known in NAMES.items():
        inside = name.removeprefix(tower)
        if inside == name:
            continue
        if inside.startswith(BLOCKS):
            return _in_block(name)
        for theirs, ours in known.items():
            if inside == theirs or inside.startswith(f"{theirs}."):
                return PREFIXES[tower] + ours + inside.removeprefix(theirs)
    return name


def _in_block(name: str) -> str:
    for theirs, ours in BLOCK.items():
        head, found, kind = name.partition(f".{theirs}.")
        if found:
            return f"{_block(head)}.{ours}.{kind}"
    return name


def _block(name: str) -> str:
    """The name of a block: ``vision_model.encoder.layers.3`` is ``visual.transformer...3``."""
    for tower, prefix in PREFIXES.items():
        name = name.replace(f"{tower}{BLOCKS}", f"{prefix}transformer.resblocks.")
    return name
