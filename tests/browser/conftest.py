"""The host's own frontend in a real Chromium; skipped in a sentence where there is none."""

import json
import tomllib
from pathlib import Path

import pytest

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"


@pytest.fixture(scope="session")
def frontend(pytestconfig):
    """The module ``scripts/frontend.py``."""
    chromium = pytestconfig.zmagic_script("chromium")
    if chromium.find_chromium() is None:
        pytest.skip(chromium.NO_CHROMIUM)
    return pytestconfig.zmagic_script("frontend")


@pytest.fixture(scope="session")
def server(pytestconfig, frontend, tmp_path_factory):
    """A host that has the pictures which the graphs name, and those that nodes show here."""
    folder = tmp_path_factory.mktemp("browser")
    frontend.write_pictures(folder / "input")
    running = pytestconfig.zmagic_script("api_client").running_server
    # With folders of its own: another process may be looking through the other renderer.
    (folder / "user").mkdir()
    own = [f"--{name}-directory={folder / name}" for name in ("input", "user")]
    with running(folder, folder / "server.log", cpu=True, arguments=own) as server:
        yield server


@pytest.fixture(scope="session")
def graph_of():
    """The content of the graph file that was made from a prompt of ``workflows/api``."""
    texts = tomllib.loads((WORKFLOWS / "graphs.toml").read_text(encoding="utf-8"))
    return lambda name: json.loads(
        (WORKFLOWS / f"{texts[name]['name']}.json").read_text(encoding="utf-8")
    )
