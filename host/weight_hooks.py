"""The host's hooks that rewrite weights in place between two conditionings (LoRA per prompt)."""

from typing import Any

import comfy.utils
import torch
from torch import nn

__all__ = ["hooked_modules", "use_hooks"]


def hooked_modules(patcher: Any) -> set[nn.Module]:
    """List the modules whose weights the patcher's hooks rewrite between two conditionings."""
    hook_patches = getattr(patcher, "hook_patches", None) or {}
    keys = {key for patches in hook_patches.values() for key in patches}
    return {comfy.utils.get_attr(patcher.model, key.rpartition(".")[0]) for key in keys}


def use_hooks(patcher: Any, hooks: Any) -> None:
    """Set weights as in a forward pass under ``hooks``; without a patcher nothing happens."""
    if patcher is not None and patcher.current_hooks != hooks:
        with torch.inference_mode():  # the mode in which the host keeps its copies of weights
            patcher.patch_hooks(hooks)
