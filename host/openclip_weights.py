"""Weights for open_clip architectures: which are published, where they are, how to get them."""

import importlib.util
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from ..guidance.optional_packages import install_line, needed
from ..guidance.wording import one_line
from .model_files import (
    Source,
    find_file,
    installed_name,
    list_files,
    offered,
    search_paths,
)
from .openclip_configs import WEIGHTS, model_configurations
from .openclip_preferences import PREFERENCES

__all__ = [
    "architectures",
    "find_weights",
    "open_clip",
    "published_tag",
    "weight_names",
]

# Well-known weights, by the name under which the node downloads them, and those of preferences,
# which open_clip does not know.
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
    **{each.file: each.source for each in PREFERENCES},
}
ANY_SOURCE = Source(
    "the weights that https://github.com/mlfoundations/open_clip lists for the architecture",
    "0.6 to 10 GB",
    "of those weights",
)


def open_clip() -> Any:
    """Import the package ``open_clip``.

    Raises:
        ValueError: it is missing or too old; the message has the line that installs it.
    """
    module = needed("open_clip", "open_clip_torch")
    if not hasattr(module.transformer.VisionTransformer, "forward_intermediates"):
        raise ValueError(
            f"the Python package 'open_clip_torch' is too old, version 2.32 or later is "
            f"needed:\n{install_line('open_clip_torch', upgrade=True)}"
        )
    known = module.list_models()
    for file in model_configurations():
        if file.stem not in known:
            module.add_model_config(file)
    return module


def architectures() -> list[str]:
    """List the names of the architectures that the installed open_clip has, without importing it.

    After them those of configurations in open_clip's format that lie beside weights.
    """
    found = importlib.util.find_spec("open_clip")
    folders = (found.submodule_search_locations if found else None) or ()
    names = {file.stem for folder in folders for file in Path(folder).glob("model_configs/*.json")}
    names = sorted(names) or sorted({name.partition("_")[0] for name in PUBLISHED})
    return list(dict.fromkeys([*names, *(file.stem for file in model_configurations())]))


def weight_names() -> list[str]:
    """List the files that are there, and the well-known ones, marked where they are not."""
    return offered(list_files(WEIGHTS), list(PUBLISHED))


def published_tag(architecture: str, name: str) -> str | None:
    """Find the tag of open_clip's weights for ``architecture`` that a file is named after, or None.

    ``CLIP-ViT-B-32-laion2B-s34B-b79K.safetensors`` is named after ``laion2b_s34b_b79k``.
    """
    plain = _plain(Path(name).name)
    tags = open_clip().list_pretrained_tags_by_model(architecture)
    return max((tag for tag in tags if _plain(tag) in plain), key=len, default=None)


def find_weights(architecture: str, name: str, *, download: bool) -> Path:
    """Find the file called ``name``; with ``download`` it is fetched if it is missing.

    Raises:
        ValueError: it is not there, and cannot be or shall not be downloaded.
    """
    name = installed_name(name)
    if not download or not isinstance(name, str) or name in list_files(WEIGHTS):
        return find_file(WEIGHTS, name, PUBLISHED.get(str(name), ANY_SOURCE))
    if any(name == each.file for each in PREFERENCES):  # nobody downloads them but the user
        return find_file(WEIGHTS, name, PUBLISHED[name])
    tag = published_tag(architecture, name)
    if tag is None:
        tags = ", ".join(open_clip().list_pretrained_tags_by_model(architecture)) or "none"
        raise ValueError(
            f"'download' is on, but '{name}' is not named after weights published for "
            f"{architecture}: expected a name such as {architecture}_<tag>.safetensors with one of "
            f"the tags {tags}"
        )
    return _downloaded(architecture, tag)


def _downloaded(architecture: str, tag: str) -> Path:
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
                f"downloading the weights {tag} of {architecture} from "
                f"{config.get('hf_hub') or config.get('url')} failed ({one_line(error)}); get "
                f"them by other means and put them in {folder}"
            ) from error
        target = folder / f"{architecture}_{tag}{fetched.suffix}"
        os.replace(fetched.resolve(), target)
    return target


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]+", "_", name.lower())
