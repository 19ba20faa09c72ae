"""Makes the pack importable as ``zmagic`` for every test, with or without a host."""

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location(
    "zmagic_headless", Path(__file__).resolve().parents[1] / "scripts" / "headless.py"
)
headless = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(headless)
headless.load_pack()


def pytest_configure(config):
    config.zmagic_headless = headless


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state, whatever ran before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def face_networks() -> Path:
    """Real face networks (MIT) that setup fetched from the package registry: a folder of ONNX."""
    folder = Path(__file__).resolve().parents[1] / ".host" / "networks" / "face"
    assert folder.is_dir(), "run 'make test' once: it fetches the networks"
    return folder
