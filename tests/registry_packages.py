"""Packages of the registry that single tests compare with: in folders of their own, not installed.

Nothing else in the environment sees them, and nothing that they ask for is fetched.
"""

import importlib
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

__all__ = ["imported", "package_folder"]


def package_folder(packages, requirement: str) -> Path:
    """Have a package in a folder below ``.host``; where that fails, the test is skipped.

    Args:
        packages: the module of that name among the scripts.
        requirement: name and version, such as ``lpips==0.1.4``.
    """
    folder = packages.STATE / "packages" / requirement
    if not folder.is_dir():
        # With a name of its own: another process may be fetching it for another file of tests.
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}.unfinished")
        try:
            packages.pip(
                *("install", "--no-deps", "--upgrade", "--target", unfinished, requirement),
                purpose=f"downloading {requirement}",
            )
        except packages.SetupError as reason:
            pytest.skip(str(reason))
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            shutil.rmtree(unfinished)  # the other one was first
    return folder


def imported(name: str, folder: Path) -> ModuleType:
    """The module of a package in its folder."""
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
