"""Configurations in open_clip's format, which lie beside weights: architectures, preprocessing.

They are files that others put there: looked at while nodes are defined, so that nothing in them may
fail, take long or wait, and checked before a model is made of them.
"""

import json
import logging
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..guidance.wording import quoted
from .model_files import ModelKind, search_paths

__all__ = [
    "WEIGHTS",
    "Facts",
    "check_configuration",
    "facts_beside",
    "model_configurations",
]

log = logging.getLogger(__name__)

WEIGHTS = ModelKind(
    "OpenCLIP weights", ("open_clip", "clip_vision"), (".safetensors", ".pt", ".pth", ".bin")
)

# Where the pack keeps the configuration of its own model.
DEMO_MODELS = Path(__file__).resolve().parents[1] / "demo_models"

# By these open_clip knows a model's configuration among other JSON files.
CONFIGURATION_KEYS = {"embed_dim", "vision_cfg", "text_cfg"}

# The file that the Hugging Face hub holds beside weights, and what these are called there.
FACTS_FILE = "open_clip_config.json"
PUBLISHED_STEMS = ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")

# Configurations have a few hundred bytes.
LARGEST_FILE = 64 * 1024
MOST_LINKS = 40

# No model has larger numbers in its configuration; vocabularies have a quarter million words.
LARGEST_NUMBER = 1_000_000
LARGEST = {"layers": 200, "width": 20_000, "heads": 400, "image_size": 4_000, "embed_dim": 20_000}

# Where open_clip's own code fetches something by the name of a model of others.
FETCHED = ("hf-hub:", "hf_hub:", "local-dir:")

# Files that were said to be no configurations.
_refused: set[Path] = set()


@dataclass(frozen=True)
class Facts:
    """What a configuration tells about the weights beside it.

    Attributes:
        file: the file of the configuration.
        model: the architecture in open_clip's format; empty if it is not in the file.
        preprocessing: mean, std, interpolation and resize_mode, as far as they are there.
    """

    file: Path
    model: dict[str, Any]
    preprocessing: dict[str, Any]


def model_configurations() -> list[Path]:
    """List configurations of architectures in the folders of weights and of the demo models.

    Other files are ignored; those that cannot be read are said once in the log.
    """
    folders = (*search_paths(WEIGHTS), DEMO_MODELS)
    files = sorted({file for folder in folders for file in _json_files(folder)})
    return [file for file in files if _is_configuration(file)]


def check_configuration(name: str, config: Any) -> None:
    """Raise ValueError unless a model may be made of a configuration; ``name`` is the model's."""
    if not isinstance(config, dict) or not isinstance(config.get("embed_dim"), int):
        raise ValueError(_unusable(name, "'embed_dim' must be a whole number"))
    for key in ("vision_cfg", "text_cfg"):
        if not isinstance(config.get(key), dict):
            raise ValueError(
                _unusable(name, f"{key!r} must be an object, got {quoted(config.get(key))}")
            )
    for key, value in _leaves(config):
        wrong = isinstance(value, float) and not math.isfinite(value)
        if wrong or (isinstance(value, int | float) and _is_too_large(key, value)):
            raise ValueError(_unusable(name, f"{key!r} cannot be {quoted(value)}"))
        if isinstance(value, str) and value.startswith(FETCHED):
            raise ValueError(
                _unusable(name, f"{key!r} names a model of the Internet, {quoted(value)}")
            )


def facts_beside(path: Path) -> Facts | None:
    """Read ``open_clip_config.json`` beside the weights in ``path``, None where there is none.

    It lies beside the file or, if that is a link, beside what it points to. It is that of a file
    under one of the names of the hub, or of the only weights in its folder.

    Raises:
        ValueError: it is there and cannot be used; the message says why.
    """
    for place in _places(path):
        file = place.parent / FACTS_FILE
        if not os.path.lexists(file) or not _belongs(place):
            continue
        content, why = _read(file)
        if why:
            raise ValueError(f"{file.name} beside {quoted(path.name)} {why}.\n{_REMOVE}")
        return _facts(file, content)
    return None


_REMOVE = "Get it again from where the weights are from, or remove it"


def _facts(file: Path, content: Any) -> Facts:
    parts = {}
    for key in ("model_cfg", "preprocess_cfg"):
        parts[key] = content.get(key, {}) if isinstance(content, dict) else None
        if not isinstance(parts[key], dict):
            raise ValueError(f"{file.name} has no {key!r} with settings in it.\n{_REMOVE}")
    if parts["model_cfg"]:
        check_configuration(file.name, parts["model_cfg"])
    preprocessing = parts["preprocess_cfg"]
    for key in ("mean", "std"):
        value = preprocessing.get(key)
        if value is not None and not _are_colors(value, positive=key == "std"):
            raise ValueError(
                f"{file.name}: {key!r} must be three numbers such as "
                f"[0.48, 0.46, 0.41], got {quoted(value)}.\n{_REMOVE}"
            )
    for key, known in (
        ("interpolation", ("bicubic", "bilinear")),
        ("resize_mode", ("shortest", "squash", "longest")),
    ):
        value = preprocessing.get(key)
        if value is not None and value not in known:
            raise ValueError(
                f"{file.name}: {key!r} must be one of {', '.join(known)}, got {quoted(value)}"
            )
    return Facts(file, parts["model_cfg"], preprocessing)


def _are_colors(value: Any, *, positive: bool) -> bool:
    if not isinstance(value, list) or len(value) != 3:
        return False
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    return numbers and all(abs(v) <= 10.0 and (v > 1e-3 or not positive) for v in value)


def _leaves(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested objects and lists, with the names that they have there."""
    waiting = [(name, content)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(str(inner), each) for inner, each in value.items()]
        elif isinstance(value, list):
            waiting += [(key, each) for each in value]
        else:
            yield key, value


def _is_too_large(key: str, value: float) -> bool:
    return abs(value) > LARGEST.get(key, LARGEST_NUMBER)


def _unusable(name: str, why: str) -> str:
    return (
        f"the configuration of the architecture {quoted(name)} cannot be used: {why}.\n"
        "Compare it with those that open_clip brings, in its folder model_configs"
    )


def _places(path: Path) -> Iterator[Path]:
    """The file, and where it is by each link on the way to what it is."""
    for _ in range(MOST_LINKS):
        yield path
        try:
            if not path.is_symlink():
                break
            path = path.parent / os.readlink(path)
        except OSError:
            return
    resolved = path.resolve()
    if resolved != path:
        yield resolved


def _belongs(weights: Path) -> bool:
    if weights.stem in PUBLISHED_STEMS:
        return True
    try:
        others = [name for name in os.listdir(weights.parent) if name != weights.name]
    except OSError:
        return False
    return not any(name.lower().endswith(WEIGHTS.extensions) for name in others)


def _json_files(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder) if name.endswith(".json")]
    except OSError:  # there is no such folder, or it is not ours to read
        return []


def _is_configuration(file: Path) -> bool:
    content, why = _read(file)
    if why and file not in _refused:
        _refused.add(file)
        log.warning("Z-Magic: %s is ignored: it %s", quoted(str(file), 300), why)
    return isinstance(content, dict) and content.keys() >= CONFIGURATION_KEYS


def _read(file: Path) -> tuple[Any, str]:
    """The content of a JSON file, or why there is none to be had."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # reading another one may take for ever
            return None, "is no ordinary file"
        if status.st_size > LARGEST_FILE:
            return None, f"has {status.st_size:,} bytes, more than a configuration has"
        return json.loads(file.read_text(encoding="utf-8")), ""
    except OSError as error:
        return None, f"cannot be read ({error.strerror})"
    except (ValueError, RecursionError):
        return None, "is not valid JSON"
