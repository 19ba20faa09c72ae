"""Host tests run inside the real ComfyUI, on the CPU, on real architectures of small size."""

import pytest


@pytest.hookimpl(trylast=True)  # after the one in tests/conftest.py
def pytest_configure(config):
    config.zmagic_headless.load_host()
