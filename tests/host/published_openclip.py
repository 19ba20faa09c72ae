"""OpenCLIP weights files for tests: published architectures with seeded random weights."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file


@contextmanager
def added_architectures() -> Iterator[None]:
    """What is added to open_clip's list of architectures inside leaves it behind."""
    factory = importlib.import_module("open_clip.factory")
    before = dict(factory._MODEL_CONFIGS), list(factory._MODEL_CONFIG_PATHS)
    try:
        yield
    finally:
        factory._MODEL_CONFIGS, factory._MODEL_CONFIG_PATHS = before


def write_openclip(folder: Path, architecture: str = "ViT-B-32") -> Path:
    """A weights file of exactly the published architecture, in half precision to spare the disk.

    Args:
        folder: where to put it, such as the host's ``models/open_clip``.
        architecture: one of ``open_clip.list_models()``.

    Returns:
        ``folder / "<architecture>_random.safetensors"``, in open_clip's own naming of tensors.
    """
    with torch.inference_mode(False), torch.random.fork_rng([]):
        torch.manual_seed(0)
        config = open_clip.get_model_config(architecture)
        config["text_cfg"].pop("hf_model_name", None)
        custom = config.pop("custom_text", False)
        model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
        weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{architecture}_random.safetensors"
    save_file(weights, path)
    return path
