"""The server starts with the pack, or an old one says in one sentence which version it needs."""

import json
import re
import sys
from pathlib import Path

import pytest

from zmagic.host.version import OLDEST_HOST, refuse_old_host

PACK = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """The kinds of nodes that a server without anything else knows, and what it printed."""
    sys.path.insert(0, str(PACK / "scripts"))
    try:
        from api_client import running_server
        from headless import host_path
        from host_archive import version_of
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("start")
    with running_server(folder, folder / "server.log", cpu=True) as server:
        kinds = set(server.get("/object_info"))
    log = (folder / "server.log").read_text(encoding="utf-8")
    return version_of(host_path()), kinds, log


@pytest.mark.slow
def test_the_pack_is_there_or_says_what_it_needs(started):
    version, kinds, log = started
    ours = {kind for kind in kinds if kind.startswith("ZMagic")}
    about_us = [line for line in log.splitlines() if re.search(r"custom_nodes\W+z-magic", line)]
    assert about_us and not [line for line in about_us if line.startswith("  File")]
    try:
        refuse_old_host(version)
    except RuntimeError as refusal:
        assert not ours
        (sentence,) = [line for line in about_us if "comfy_entrypoint" in line]
        assert sentence.endswith(f": {refusal}")
        assert f"needs ComfyUI {OLDEST_HOST} or newer, and this is {version}" in sentence
        return
    assert not [line for line in about_us if re.search("Error|Cannot|Skip|FAILED", line)]
    graphs = [json.loads(file.read_text()) for file in (PACK / "workflows" / "api").glob("*.json")]
    used = {node["class_type"] for graph in graphs for node in graph.values()}
    assert used <= kinds
