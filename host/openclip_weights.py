"""Weights for open_clip architectures: which are published, where they lie, how they are read."""

import importlib.util
import json
import os
import pickle
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from torch import nn

from ..guidance.networks import Preprocessing
from ..guidance.networks.file_kinds import mishap
from ..guidance.optional_packages import needed
from .model_files import (
    ModelKind,
    Source,
    find_file,
    installed_name,
    list_files,
    offered,
    search_paths,
)

__all__ = [
    "architectures",
    "find_weights",
    "open_clip",
    "preprocessing_of",
    "published_tag",
    "read_weights",
    "weight_names",
]

WEIGHTS = ModelKind(
    "OpenCLIP weights", ("open_clip", "clip_vision"), (".safetensors", ".pt", ".pth", ".bin")
)

# Well-known weights, by the name under which the node downloads them.
PUBLISHED = {
    "ViT-B-32_laion2b_s34b_b79k.safetensors": Source(
        "https://huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K, open_clip_model.safetensors",
        "605 MB",
        "MIT",
    ),
    "ViT-L-14_laion2b_s32b_b82k.safetensors": Source(
        "https://huggingface.co/laion/CLIP-ViT-L-14-laion2B-s32B-b82K, open_clip_model.safetensors",
        "1.7 GB",
        "MIT",
    ),
    "ViT-H-14_laion2b_s32b_b79k.safetensors": Source(
        "https://huggingface.co/laion/CLIP-ViT-H-14-laion2B-s32B-b79K, open_clip_model.safetensors",
        "3.9 GB",
        "MIT",
    ),
}
ANY_SOURCE = Source(
    "the weights that https://github.com/mlfoundations/open_clip lists for the architecture",
    "0.6 to 10 GB",
    "of those weights",
)

# Where the pack keeps the configuration of its own model.
DEMO_MODELS = Path(__file__).resolve().parents[1] / "demo_models"

# By these open_clip knows a model's configuration among other JSON files.
CONFIGURATION_KEYS = {"embed_dim", "vision_cfg", "text_cfg"}

# How open_clip calls what our preprocessing calls a fit.
FITS = {"shortest": "crop", "squash": "stretch"}

# Of a published configuration, what preprocessing depends on.
PREPROCESSING_KEYS = ("mean", "std", "interpolation", "resize_mode")


def open_clip(owner: str = "OpenCLIP") -> Any:
    """The package, which ``owner`` needs.

    Raises:
        ValueError: it is missing or too old; the message has the line that installs it.
    """
    try:
        module = needed("open_clip", "open_clip_torch")
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from error
    if not hasattr(module.transformer.VisionTransformer, "forward_intermediates"):
        raise ValueError(
            f"{owner}: the Python package 'open_clip_torch' is too old, version 2.32 or later is "
            "needed: run 'python -m pip install --upgrade open_clip_torch' in ComfyUI's Python "
            "environment and restart ComfyUI"
        )
    known = module.list_models()
    for file in _configurations():
        if file.stem not in known:
            module.add_model_config(file)
    return module


def architectures() -> list[str]:
    """Names of the architectures that the installed open_clip has, without importing it.

    After them those of configurations in open_clip's format that lie beside weights.
    """
    found = importlib.util.find_spec("open_clip")
    folders = (found.submodule_search_locations if found else None) or ()
    names = {file.stem for folder in folders for file in Path(folder).glob("model_configs/*.json")}
    names = sorted(names) or sorted({name.partition("_")[0] for name in PUBLISHED})
    return list(dict.fromkeys([*names, *(file.stem for file in _configurations())]))


def _configurations() -> list[Path]:
    """Configurations of models in the folders of weights and in that of the demo models."""
    folders = (*search_paths(WEIGHTS), DEMO_MODELS)
    files = sorted({file for folder in folders for file in folder.glob("*.json")})
    return [file for file in files if _is_configuration(file)]


def _is_configuration(file: Path) -> bool:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.keys() >= CONFIGURATION_KEYS


def weight_names() -> list[str]:
    """Files that are there, and the well-known ones, marked where they are not."""
    return offered(list_files(WEIGHTS), list(PUBLISHED))


def published_tag(architecture: str, name: str) -> str | None:
    """The tag of open_clip's weights for ``architecture`` that a file is named after, or None.

    ``CLIP-ViT-B-32-laion2B-s34B-b79K.safetensors`` is named after ``laion2b_s34b_b79k``.
    """
    plain = _plain(Path(name).name)
    tags = open_clip().list_pretrained_tags_by_model(architecture)
    return max((tag for tag in tags if _plain(tag) in plain), key=len, default=None)


def find_weights(architecture: str, name: str, owner: str, *, download: bool) -> Path:
    """The file called ``name``; with ``download`` it is fetched if it is missing.

    Raises:
        ValueError: it is not there, and cannot be or shall not be downloaded.
    """
    name = installed_name(name)
    if not download or not isinstance(name, str) or name in list_files(WEIGHTS):
        return find_file(WEIGHTS, name, owner, PUBLISHED.get(str(name), ANY_SOURCE))
    tag = published_tag(architecture, name)
    if tag is None:
        tags = ", ".join(open_clip().list_pretrained_tags_by_model(architecture)) or "none"
        raise ValueError(
            f"{owner}: 'download' is on, but '{name}' is not named after weights published for "
            f"{architecture}: expected a name such as {architecture}_<tag>.safetensors with one of "
            f"the tags {tags}"
        )
    return _downloaded(architecture, tag, owner)


def _downloaded(architecture: str, tag: str, owner: str) -> Path:
    """The published weights in the first of our folders, fetched unless they are there."""
    folder = search_paths(WEIGHTS)[0]
    there = sorted(folder.glob(f"{architecture}_{tag}.*"))
    if there:
        return there[0]
    module = open_clip()
    config = module.get_pretrained_cfg(architecture, tag)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as unfinished:
        try:
            fetched = Path(module.download_pretrained(config, cache_dir=unfinished))
        except Exception as error:  # of the hub's, of the network's, of the disk's
            raise ValueError(
                f"{owner}: downloading the weights {tag} of {architecture} from "
                f"{config.get('hf_hub') or config.get('url')} failed ({_one_line(error)}); get "
                f"them by other means and put them in {folder}"
            ) from error
        target = folder / f"{architecture}_{tag}{fetched.suffix}"
        os.replace(fetched.resolve(), target)
    return target


def preprocessing_of(architecture: str, name: str, size: int | tuple[int, int]) -> Preprocessing:
    """What open_clip does to a picture before the image tower.

    Of the published weights that the file is named after; of any other file, that of most weights
    published for the architecture.

    Args:
        size: of the tower's input: its side, or height and width.
    """
    module = open_clip()
    tag = published_tag(architecture, name)
    tags = [tag] if tag else module.list_pretrained_tags_by_model(architecture)
    configs = [module.get_pretrained_cfg(architecture, tag) for tag in tags]
    configs = configs or [{}]
    defaults = {
        "mean": module.OPENAI_DATASET_MEAN,
        "std": module.OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    votes = Counter(
        tuple(config.get(key) or defaults[key] for key in PREPROCESSING_KEYS) for config in configs
    )
    mean, std, interpolation, resize_mode = votes.most_common(1)[0][0]
    return Preprocessing(
        size=(size, size) if isinstance(size, int) else tuple(size),
        mean=tuple(mean),
        std=tuple(std),
        fit=FITS[resize_mode],
        interpolation=interpolation,
    )


def read_weights(model: nn.Module, path: Path, architecture: str, owner: str) -> None:
    """Load ``path`` into an open_clip model, by open_clip's own conversions, without running code.

    Raises:
        ValueError: the file cannot be read safely, or holds another network.
    """
    try:
        open_clip().load_checkpoint(model, str(path), strict=True, weights_only=True)
    except Exception as error:  # of safetensors', of torch's unpickler, of load_state_dict
        if _is_image_tower_of_transformers(path):
            raise ValueError(
                f"{owner}: '{path.name}' is an image tower in the format of ComfyUI's CLIP vision "
                "models, which open_clip cannot read; load it with 'Load CLIP Vision' and connect "
                "it at 'clip_vision'"
            ) from error
        known = _mishap_of_weights(path, error)
        if known:
            raise ValueError(
                f"{owner}: {path.name!r} cannot be read as weights: it is {known}"
            ) from error
        raise ValueError(
            f"{owner}: '{path.name}' cannot be read as weights of {architecture}: choose the "
            "architecture it was made for, or open_clip's own weights as safetensors "
            f"({_one_line(error)})"
        ) from error


def _mishap_of_weights(path: Path, error: Exception) -> str | None:
    """What a file is instead of weights; those of PyTorch and of safetensors may be."""
    known = mishap(path) or ""
    if isinstance(error, pickle.UnpicklingError) and known.startswith("a checkpoint"):
        return "a whole training checkpoint: get the weights alone, as safetensors"
    allowed = known.startswith(("a checkpoint", "one of weights"))
    return None if allowed else known or None


def _is_image_tower_of_transformers(path: Path) -> bool:
    if path.suffix.lower() != ".safetensors":
        return False
    try:
        with needed("safetensors").safe_open(path, framework="pt") as file:
            return any(key.startswith("vision_model.") for key in file.keys())  # noqa: SIM118
    except Exception:  # not a safetensors file at all
        return False


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]+", "_", name.lower())


# Of a message of another library, as much as helps in ours.
LONGEST_DETAIL = 200


def _one_line(error: Exception) -> str:
    plain = re.sub("\x1b\\[[0-9;]*m", "", str(error))  # without the colours of a terminal
    text = " ".join(plain.split()) or type(error).__name__
    return text if len(text) <= LONGEST_DETAIL else text[:LONGEST_DETAIL] + "..."
