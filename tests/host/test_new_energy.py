"""What docs/new_energy.md says, followed to the letter in a copy of the pack."""

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import folder_paths
import pytest
import torch

PACK = Path(__file__).resolve().parents[2]
FOLDERS = ("guidance", "host", "nodes", "scripts", "tests/energies", "web/docs", "workflows")
FILES = ("pyproject.toml", "__init__.py", "tests/conftest.py")
HOST_TESTS = ("tests/host/conftest.py", "tests/host/test_contract.py")


def steps(text: str) -> dict[str, str]:
    """The file that each numbered step names first, and the code that follows."""
    parts = re.split(r"^\d+\. `([^`]+)`", text, flags=re.MULTILINE)[1:]
    return {
        file: textwrap.dedent("\n".join(re.findall(r"^(?: {8}.*|)$", rest, re.MULTILINE)))
        for file, rest in zip(parts[::2], parts[1::2], strict=True)
    }


STEPS = steps((PACK / "docs" / "new_energy.md").read_text(encoding="utf-8"))


def with_row(table: str, code: str) -> str:
    """The table of energies with an import, in the order of the alphabet, and a last row."""
    line, row = (part.rstrip() for part in code.strip("\n").split("\n\n"))
    after = next(other for other in re.findall(r"^from .*", table, re.MULTILINE) if other > line)
    table = table.replace(after, f"{line}\n{after}", 1)
    return table.replace("\n}\n", f"\n{row}\n}}\n", 1)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The pack with the page's example in it: three new files and a row."""
    folder = tmp_path_factory.mktemp("readme") / "z-magic"
    for name in FOLDERS:
        shutil.copytree(PACK / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests" / "host").mkdir()
    for name in FILES + HOST_TESTS:
        shutil.copy(PACK / name, folder / name)
    *new, table = STEPS
    for file in new:
        assert not (folder / file).exists()
        (folder / file).write_text(STEPS[file].strip() + "\n", encoding="utf-8")
    text = (folder / table).read_text(encoding="utf-8")
    (folder / table).write_text(with_row(text, STEPS[table]), encoding="utf-8")
    script = [sys.executable, "scripts/help_pages.py"]
    environment = {**os.environ, "COMFYUI_PATH": folder_paths.base_path}
    subprocess.run(script, cwd=folder, env=environment, check=True, capture_output=True)
    return folder


def passed(copy: Path, *arguments: str) -> list[str]:
    """Run pytest in the copy; the tests that passed, all that ran."""
    environment = {**os.environ, "COMFYUI_PATH": folder_paths.base_path}
    command = [sys.executable, "-m", "pytest", "-v", *arguments]
    result = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return re.findall(r"::(\S+) PASSED", result.stdout)


def test_the_steps_name_their_files():
    assert list(STEPS) == [
        "guidance/energies/warmth.py",
        "nodes/warmth_nodes.py",
        "web/docs/ZMagicWarmth.md",
        "tests/energies/energy_table.py",
    ]


def test_the_code_is_written_as_the_rest(copy):
    files = [file for file in STEPS if file.endswith(".py")]
    for command in (("check",), ("format", "--check", "--diff")):
        ruff = [sys.executable, "-m", "ruff", *command, *files]
        result = subprocess.run(ruff, cwd=copy, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_the_energy_passes_the_shared_tests(copy):
    names = passed(copy, "tests/energies/test_energies.py", "-k", "warmth or left_out")
    assert {"test_no_energy_is_left_out", "test_descent[warmth]"} <= set(names)
    shared = {name.split("[")[0] for name in names}
    source = (PACK / "tests" / "energies" / "test_energies.py").read_text(encoding="utf-8")
    assert shared == set(re.findall(r"^def (test_\w+)", source, re.MULTILINE))


@pytest.mark.slow
def test_the_node_and_its_help_page_pass_the_tests_of_all_nodes(copy):
    names = passed(copy, "tests/host/test_contract.py", "-k", "ZMagicWarmth or no_help_page")
    assert set(names) == {
        "test_schema[ZMagicWarmth]",
        "test_tooltips_can_be_read_in_a_narrow_column[ZMagicWarmth]",
        "test_a_region_is_said_to_be_one_of_the_picture_that_is_made[ZMagicWarmth]",
        "test_the_table_of_a_help_page_is_what_the_node_says[ZMagicWarmth]",
        "test_there_is_no_help_page_without_a_node",
    }


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
