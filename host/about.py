"""What was sampled, for the report: seed, sampler, model, versions."""

import platform
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .version import running_version

__all__ = ["about"]

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def about(patcher: Any, sampler: Any, steps: int, seed: int) -> dict[str, Any]:
    """The facts of a sampling that a report begins with.

    Args:
        patcher: the host's ModelPatcher; the model's file is known if the host's loader made it.
        sampler: the host's sampler object.
        steps: of the sampler.
        seed: of the noise.
    """
    function = getattr(sampler, "sampler_function", None)
    return {
        "seed": seed,
        "sampler": getattr(function, "__name__", type(sampler).__name__).removeprefix("sample_"),
        "steps": steps,
        "model": {"file": _file_of(patcher), "kind": type(patcher.model).__name__},
        "versions": {
            "zmagic": _own_version(),
            "comfyui": running_version(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _file_of(patcher: Any) -> str | None:
    """The name of the model's file, without its folder; None if the model was made otherwise."""
    made_by = getattr(patcher, "cached_patcher_init", None)
    path = made_by[1][0] if made_by and made_by[1] else None
    return Path(path).name if isinstance(path, str | Path) else None


@cache
def _own_version() -> str | None:
    try:
        return tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["version"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):  # an archive without it
        return None
