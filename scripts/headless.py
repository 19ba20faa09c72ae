"""Use the host and the pack inside one Python process, without a server.

Tests and lab share these functions. The pack is loaded under the package name ``zmagic``, so that
its ``nodes`` package never shadows the host's ``nodes`` module.
"""

import importlib.util
import os
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
HOST = PACK / ".host" / "ComfyUI"


def host_path() -> Path:
    """The ComfyUI folder: COMFYUI_PATH, else the one around ``custom_nodes``, else ``.host``.

    Raises FileNotFoundError when there is no ComfyUI there.
    """
    named = os.environ.get("COMFYUI_PATH")
    around = PACK.parents[1] if PACK.parent.name == "custom_nodes" else None
    path = Path(named).resolve() if named else around or HOST
    if not (path / "comfy" / "samplers.py").is_file():
        raise FileNotFoundError(
            f"no ComfyUI in {path}: set COMFYUI_PATH to a ComfyUI folder or run 'make host'"
        )
    return path


def load_pack(name: str = "zmagic"):
    """Import this folder as the package ``name`` and return it."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        name, PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def available_device(*kinds: str) -> str:
    """The first of these kinds of device that PyTorch finds here, else ``cpu``.

    Without ``kinds``: every kind of accelerator that the pack supports, ``cuda``, ``mps``, ``xpu``.
    Those who compute in double precision ask for ``cuda`` alone, since ``mps`` lacks it.
    """
    import torch

    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "xpu": hasattr(torch, "xpu") and torch.xpu.is_available(),
    }
    return next((kind for kind in kinds or found if found[kind]), "cpu")


def wanted_device() -> str:
    """The kind of device that ZMAGIC_DEVICE names, such as ``cuda``; ``cpu`` without it."""
    return os.environ.get("ZMAGIC_DEVICE") or "cpu"


def load_host_on(device: str) -> None:
    """``load_host`` on a kind of device, exact enough to compare numbers on it.

    Single precision, and products that are not rounded to fewer digits, as accelerators do by
    default in convolutions: difference quotients would drown in it.

    Raises RuntimeError when the host chooses a device of another kind.
    """
    load_host(cpu=device == "cpu", fp32=device != "cpu")
    import comfy.model_management
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    found = comfy.model_management.get_torch_device().type
    if found != device:
        raise RuntimeError(f"ZMAGIC_DEVICE asks for {device!r}, but ComfyUI runs on {found!r}")


def load_host(*, cpu: bool = True, fp32: bool = False):
    """Put the host on ``sys.path`` and initialize ``comfy``; on the CPU unless ``cpu`` is False.

    ``fp32`` keeps it from halving the precision of what it loads, as it does on accelerators.
    Must run before anything imports ``comfy``: the host reads its command line at import.
    """
    path = str(host_path())
    sys.path[:] = [path] + [entry for entry in sys.path if Path(entry or ".").resolve() != PACK]

    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = cpu
    args.force_fp32 = args.fp32_vae = args.fp32_text_enc = fp32
    import comfy.model_management

    return comfy
