"""What the check ran on: the device, and the versions of everything that computes on it."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from scripts.headless import host_path

__all__ = ["describe"]

KERNELS = (
    "comfy-kitchen",
    "comfy-aimdo",
    "xformers",
    "sageattention",
    "flash-attn",
    "triton",
    "triton-windows",
)


def describe(device: str) -> dict:
    """Names and versions, for the JSON and for the first lines of the output."""
    return {
        "device": device,
        "name": _name(device),
        "memory_gib": _memory(device),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cudnn": torch.backends.cudnn.version() if device == "cuda" else None,
        "host": _host_version(),
        "kernels": {name: _version(name) for name in KERNELS},
    }


def _name(device: str) -> str:
    if device in ("cuda", "xpu"):
        return getattr(torch, device).get_device_name(0)
    return platform.processor() or platform.machine()


def _memory(device: str) -> float | None:
    """Return the GiB of the device's own memory."""
    if device not in ("cuda", "xpu"):
        return None
    return round(getattr(torch, device).get_device_properties(0).total_memory / 2**30, 1)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _host_version() -> str | None:
    file = host_path() / "comfyui_version.py"
    if not file.is_file():
        return None
    names: dict[str, str] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        name, found, value = line.partition("=")
        if found:
            names[name.strip()] = value.strip().strip("\"'")
    return names.get("__version__")
