"""What the README says about adding an energy, followed to the letter in a copy of the pack."""

import asyncio
import importlib.util
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

PACK = Path(__file__).resolve().parents[2]
FOLDERS = ("guidance", "host", "nodes", "scripts", "tests/pure")
FILES = ("__init__.py", "pyproject.toml", "tests/conftest.py")


def section(title: str) -> str:
    text = (PACK / "README.md").read_text(encoding="utf-8")
    return re.search(rf"^## {title}\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)[1]


def steps(text: str) -> dict[str, str]:
    """The file that each numbered step names first, and the code that follows."""
    parts = re.split(r"^\d+\. `([^`]+)`", text, flags=re.MULTILINE)[1:]
    return {
        file: textwrap.dedent("\n".join(re.findall(r"^(?: {8}.*|)$", rest, re.MULTILINE)))
        for file, rest in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The pack with the README's example in it."""
    folder = tmp_path_factory.mktemp("readme") / "z-magic"
    for name in FOLDERS:
        shutil.copytree(PACK / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(PACK / name, folder / name)
    for file, code in steps(section("Adding an energy")).items():
        path = folder / file
        if path.is_file():
            before, after = path.read_text(encoding="utf-8").split("\n}\n", 1)
            path.write_text(f"{before}\n}}\n{code}\n{after}", encoding="utf-8")
        elif path.suffix == ".py":
            path.write_text(code, encoding="utf-8")
    listing = folder / "nodes" / "extension.py"
    text, places = re.subn(
        r"( +)picture_energy_nodes,\n", r"\g<0>\1warmth_nodes,\n", listing.read_text()
    )
    assert places == 2
    listing.write_text(text)
    return folder


def test_the_steps_name_their_files():
    assert list(steps(section("Adding an energy"))) == [
        "guidance/energies/warmth.py",
        "nodes/warmth_nodes.py",
        "web/docs/ZMagicWarmth.md",
        "tests/pure/test_energies.py",
    ]


@pytest.mark.slow
def test_the_energy_passes_the_shared_tests(copy):
    command = [sys.executable, "-m", "pytest", "-v", "tests/pure/test_energies.py", "-k", "warmth"]
    result = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"test_descent\[warmth\] PASSED", result.stdout), result.stdout
    assert int(re.search(r"(\d+) passed", result.stdout)[1]) >= 20


def test_the_node_is_listed_and_gives_a_condition(copy):
    spec = importlib.util.spec_from_file_location(
        "zmagic_with_warmth", copy / "__init__.py", submodule_search_locations=[str(copy)]
    )
    pack = sys.modules["zmagic_with_warmth"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
    (node,) = [node for node in nodes if node.__name__ == "ZMagicWarmth"]
    assert node.GET_SCHEMA().display_name == "Warmth Energy"
    (conditions,) = node.execute(weight=1.0, start=0.0, end=1.0).args
    blue, red = torch.zeros(2, 1, 3, 4, 4)
    blue[:, 2], red[:, 0] = 1.0, 1.0
    assert conditions[0].energy(blue).item() == 4.0 and conditions[0].energy(red).item() == 0.0


def test_nodes_that_are_named_as_neighbors_are_the_hosts():
    """Examples of nodes that cache predictions, in the README and in the help page."""
    import comfy_extras.nodes_easycache as cache

    for page in ("README.md", "web/docs/ZMagicApply.md"):
        text = (PACK / page).read_text(encoding="utf-8")
        (sentence,) = re.findall(r"^.*\band similar\).*$", text, re.MULTILINE)
        for name in re.findall(r"\b[A-Z]\w+Cache\b", sentence):
            assert hasattr(cache, f"{name}Node"), name
        assert "EasyCache" in sentence and "LazyCache" in sentence
