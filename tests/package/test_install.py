"""``pip install .``: zmagic.guidance by itself, without ComfyUI and without this folder."""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
SETUP = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))
CODE = """
import sys
import zmagic.guidance as guidance
from zmagic.guidance import *
print(guidance.__file__)
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("comfy", "nodes", "zmagic")))
"""


def python(*arguments: object, cwd: Path, **environment: str) -> str:
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, **environment}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what pip installs, made offline."""
    folder = tmp_path_factory.mktemp("install")
    source = folder / "source"  # a copy: building leaves things beside what it builds
    ignored = shutil.ignore_patterns(
        ".*", "__pycache__", "demo_models", "docs", "lab", "output", "build", "*.egg-info"
    )
    shutil.copytree(PACK, source, ignore=ignored)
    offline = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    built = [*offline, "--no-build-isolation", "--wheel-dir", folder]
    python("-m", "pip", "wheel", *built, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    python("-m", "pip", "install", *offline, "--target", folder / "target", wheel, cwd=folder)
    return folder / "target"


def test_guidance_is_imported_from_what_was_installed(installed):
    file, *modules = python("-c", CODE, cwd=installed.parent, PYTHONPATH=str(installed)).split()
    assert Path(file) == installed / "zmagic" / "guidance" / "__init__.py"
    assert "zmagic.guidance.engine" in modules
    assert all(name == "zmagic" or name.startswith("zmagic.guidance") for name in modules)


def test_all_of_guidance_is_installed_and_nothing_else(installed):
    def listed(folder: Path) -> set[Path]:
        return {
            file.relative_to(folder)
            for file in folder.rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        }

    assert listed(installed / "zmagic" / "guidance") == listed(PACK / "guidance")
    assert {path.name for path in (installed / "zmagic").iterdir()} - {"__pycache__"} == {
        "__init__.py",
        "guidance",
    }
    assert (installed / "zmagic" / "guidance" / "py.typed").is_file()


def test_what_is_installed_says_what_it_needs(installed):
    (found,) = [d for d in distributions(path=[str(installed)])]
    assert found.requires == SETUP["project"]["dependencies"]
