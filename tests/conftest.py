"""Makes the pack importable as ``zmagic`` for every test, with or without a host."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
SCRIPTS = TESTS.parent / "scripts"

_spec = importlib.util.spec_from_file_location("zmagic_headless", SCRIPTS / "headless.py")
headless = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(headless)
headless.load_pack()


def pytest_configure(config):
    config.zmagic_headless = headless
    config.zmagic_script = script
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if processes > 1:  # they share the cores
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // processes))


def pytest_collection_modifyitems(items):
    """Mark tests by their folder, and those that share a running server; see pyproject.toml."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in ("browser", "lab"):
            item.add_marker(folder)
        if {"server", "started"} & set(item.fixturenames):
            item.add_marker("server")


def script(name: str):
    """The module ``name`` of the folder ``scripts``, whose modules import each other by name."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state, whatever ran before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def face_networks() -> Path:
    """Real face networks (MIT) that setup fetched from the package registry: a folder of ONNX."""
    return networks_or_skip()


def networks_or_skip() -> Path:
    """The networks, fetched now if they are not there; where that fails, the test is skipped."""
    module = script("face_networks")
    try:
        return module.fetch_face_networks()
    except module.SetupError as reason:
        pytest.skip(str(reason))
