"""Host tests run inside the real ComfyUI, on real architectures of small size.

On the CPU; with ZMAGIC_DEVICE=cuda (or mps, xpu) on that device, in single precision.
"""

import pytest


@pytest.hookimpl(trylast=True)  # after the one in tests/conftest.py
def pytest_configure(config):
    headless = config.zmagic_headless
    headless.load_host_on(headless.wanted_device())
