"""Host tests run inside the real ComfyUI, on real architectures of small size.

On the CPU; with ZMAGIC_DEVICE=cuda (or mps, xpu) on that device, in single precision.
"""

import sys
import tempfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent


# Where two processes take one file after the other, none is left alone with one that takes minutes.
LONGEST = (
    "test_workflows.py",
    "test_sweeps.py",
    "test_tables.py",
    "test_baselines.py",
    "test_device_check.py",
    "test_faults.py",
    "test_pose_node.py",
    "test_graph_pictures.py",
    "test_cost.py",
    "test_speed.py",
)


def pytest_collection_modifyitems(items):
    """The files that take longest come first."""
    here = [item for item in items if item.path.parent == FOLDER]
    places = {name: place for place, name in enumerate(LONGEST)}
    here.sort(key=lambda item: places.get(item.path.name, len(places)))
    others = [item for item in items if item.path.parent != FOLDER]
    items[:] = [*here, *others]


@pytest.hookimpl(trylast=True)  # after the one in tests/conftest.py
def pytest_configure(config):
    headless = config.zmagic_headless
    headless.load_host_on(headless.wanted_device())
    _write_previews_elsewhere(config)


def _write_previews_elsewhere(config) -> None:
    """Nodes that are executed here write their previews to a folder of the test run."""
    import folder_paths

    folder = tempfile.TemporaryDirectory(prefix="zmagic-previews-")
    config.add_cleanup(folder.cleanup)
    folder_paths.set_temp_directory(folder.name)


@pytest.fixture
def kernel_without_derivative(monkeypatch):
    """The host as it is launched with attention for inference, in every module that names it."""
    import comfy.ldm.modules.attention as host_attention

    chosen = host_attention.optimized_attention

    @host_attention.wrap_attn
    def attention_sage(*args, **kwargs):
        return chosen(*args, **kwargs).detach()

    for module in list(sys.modules.values()):
        for name in ("optimized_attention", "optimized_attention_masked"):
            if getattr(module, "__dict__", {}).get(name) is chosen:
                monkeypatch.setattr(module, name, attention_sage)
    return attention_sage
