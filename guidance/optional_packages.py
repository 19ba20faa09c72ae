"""Packages that only some nodes need: the others work where they are not installed."""

from importlib import import_module
from types import ModuleType

__all__ = ["needed"]


def needed(module: str, package: str | None = None) -> ModuleType:
    """Import ``module`` of the Python package ``package`` (by default of the same name).

    Raises:
        ValueError: it cannot be imported; the message has the line that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = package or module
        raise ValueError(
            f"the Python package '{package}' is needed and cannot be imported ({error}): run "
            f"'python -m pip install {package}' in ComfyUI's Python environment and restart ComfyUI"
        ) from error
