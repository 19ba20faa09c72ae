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
