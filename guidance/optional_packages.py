"""Packages that only some nodes need: the others work where they are not installed."""

import sys
from importlib import import_module
from types import ModuleType

__all__ = ["install_line", "needed"]


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
            f"the Python package '{package}' is needed and cannot be imported:\n"
            f"{install_line(package)}\n({error})"
        ) from error


def install_line(package: str, upgrade: bool = False) -> str:
    """The sentence that says how to install a package into the Python that runs this."""
    option = " --upgrade" if upgrade else ""
    return f'run "{sys.executable}" -m pip install{option} {package}, and restart this program'
