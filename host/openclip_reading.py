"""Weights for open_clip's models: reading a file, and the message if it holds something else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..guidance.networks.file_kinds import mishap
from ..guidance.networks.transformers_clip import from_transformers, is_transformers_clip
from ..guidance.optional_packages import needed
from ..guidance.wording import one_line, quoted
from .openclip_weights import open_clip

__all__ = ["read_weights"]

# Parts of models of every kind, whose shapes tell architectures apart.
TELLING = (
    "visual.conv1.weight",
    "visual.proj",
    "visual.positional_embedding",
    "visual.head.proj.weight",
    "text.text_projection",
    "text.token_embedding.weight",
    "text.positional_embedding",
)

# Names of tensors and their shapes.
Shapes = dict[str, tuple[int, ...]]


def read_weights(model: nn.Module, path: Path, architecture: str) -> None:
    """Load ``path`` into an open_clip model, by open_clip's own conversions, without running code.

    A CLIP in the layout of the package transformers is read as well.

    Raises:
        ValueError: the file cannot be read safely, or holds another network.
    """
    name = quoted(path.name)
    strange = _strange(path)
    if strange:
        raise ValueError(f"{name} cannot be read as weights: {strange}")
    try:
        found = _shapes(path)
        if is_transformers_clip(found):
            _check_shapes(model, _shapes_in_open_clip(found), path, architecture)
            model.load_state_dict(from_transformers(_content(path)))
            return
        _check_shapes(model, found, path, architecture)
        open_clip().load_checkpoint(model, str(path), strict=True, weights_only=True)
    except _OtherArchitecture as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # of safetensors', of torch's unpickler, of load_state_dict
        raise ValueError(_why(path, architecture, error)) from error


class _OtherArchitecture(ValueError):
    """Weights are those of another architecture; the message says which."""


def _why(path: Path, architecture: str, error: Exception) -> str:
    name = quoted(path.name)
    if _is_image_tower_of_transformers(path):
        return (
            f"{name} is an image tower in the format of ComfyUI's CLIP vision models, which "
            "open_clip cannot read; load it with 'Load CLIP Vision' and connect it at 'clip_vision'"
        )
    if "weights_only" in str(error).lower() or "Unsupported global" in str(error):
        return (
            f"{name} cannot be read as weights of {architecture}: it holds Python objects beside "
            "them, as checkpoints of a training do, which may run code and are not loaded.\n"
            "Get the weights alone, as safetensors"
        )
    if path.suffix.lower() == ".safetensors" and not isinstance(error, RuntimeError):
        return (
            f"{name} cannot be read as weights of {architecture}: it is no whole safetensors file."
            f"\nDownload it again ({one_line(error)})"
        )
    return (
        f"{name} cannot be read as weights of {architecture}: choose the architecture it was made "
        f"for, or open_clip's own weights as safetensors\n({one_line(error)})"
    )


def _strange(path: Path) -> str:
    """What a file is that holds no weights, with what to do; empty for others."""
    known = mishap(path) or ""
    if known.startswith("a TorchScript"):
        return (
            "it is a TorchScript program, as OpenAI published its models, and programs of others "
            "are not run.\nGet the weights alone as safetensors, such as "
            "https://huggingface.co/timm/vit_base_patch32_clip_224.openai for ViT-B-32-quickgelu"
        )
    may_be_weights = not known or known.startswith(("a checkpoint", "one of weights"))
    return "" if may_be_weights else f"it is {known}"


def _check_shapes(model: nn.Module, found: Shapes, path: Path, architecture: str) -> None:
    """Raise _OtherArchitecture if the shapes in a file show that it is one.

    open_clip itself would resize the positions of weights for pictures of another size.
    """
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for key in TELLING:
        there = found.get(key, found.get(key.removeprefix("text.")))
        if there is None or key not in expected or there == expected[key]:
            continue
        fitting = _fitting(found)
        choose = f"choose {' or '.join(map(quoted, fitting[:3]))}" if fitting else "choose another"
        raise _OtherArchitecture(
            f"{quoted(path.name)} cannot be read as weights of {architecture}: {choose} at "
            f"'architecture'.\nIts '{key}' has the shape {list(there)}, expected "
            f"{list(expected[key])}"
        )


def _shapes(path: Path) -> Shapes:
    """Names and shapes of the tensors in a file."""
    if path.suffix.lower() == ".safetensors":
        with needed("safetensors").safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    return {name: tuple(value.shape) for name, value in _content(path, "meta").items()}


def _content(path: Path, device: str = "cpu") -> dict[str, torch.Tensor]:
    """The tensors in a file; on the device "meta" their shapes alone."""
    if path.suffix.lower() == ".safetensors":
        return needed("safetensors.torch", "safetensors").load_file(path, device=device)
    content = torch.load(path, map_location=device, weights_only=True)
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {
        str(name).removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }


def _shapes_in_open_clip(found: Shapes) -> Shapes:
    """Names and shapes that open_clip has for those of a CLIP in transformers' layout."""
    empty = {name: torch.empty(shape, device="meta") for name, shape in found.items()}
    return {name: tuple(value.shape) for name, value in from_transformers(empty).items()}


def _fitting(found: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Architectures of vision transformers that have the shapes of a file."""
    patches, projection = found.get("visual.conv1.weight"), found.get("visual.proj")
    positions = found.get("visual.positional_embedding")
    if not (patches and projection and positions and len(patches) == 4):
        return []
    width, _, patch, _ = patches
    blocks = {
        name.split(".")[3] for name in found if name.startswith("visual.transformer.resblocks.")
    }
    words = found.get("text.positional_embedding", found.get("positional_embedding"))
    wanted = (projection[-1], width, patch, len(blocks), positions[0], words)
    module = open_clip()
    return [
        name for name in module.list_models() if _numbers(module.get_model_config(name)) == wanted
    ]


def _numbers(config: Any) -> tuple | None:
    """What ``_fitting`` compares, of the configuration of an architecture."""
    try:
        vision, text = config["vision_cfg"], config["text_cfg"]
        places = (vision["image_size"] // vision["patch_size"]) ** 2 + 1
        words = (text.get("context_length", 77), text["width"])
        return (
            config["embed_dim"],
            vision["width"],
            vision["patch_size"],
            vision["layers"],
            places,
            words if "multimodal_cfg" not in config else None,
        )
    except (
        AttributeError,
        KeyError,
        TypeError,
        ZeroDivisionError,
    ):  # another kind of tower, or a broken file
        return None


def _is_image_tower_of_transformers(path: Path) -> bool:
    if path.suffix.lower() != ".safetensors":
        return False
    try:
        with needed("safetensors").safe_open(path, framework="pt") as file:
            return any(key.startswith("vision_model.") for key in file.keys())  # noqa: SIM118
    except Exception:  # not a safetensors file at all
        return False
