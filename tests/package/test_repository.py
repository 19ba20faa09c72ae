"""What the repository shows strangers: its pictures, its metadata, how to contribute."""

import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

PACK = Path(__file__).resolve().parents[2]
SETUP = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))
LEVELS = 255.0


@pytest.mark.parametrize(("name", "ratio"), [("icon", 1.0), ("banner", 21 / 9)])
def test_the_pictures_are_what_the_script_draws_in_the_shape_of_the_registry(
    pytestconfig, tmp_path, name, ratio
):
    pytestconfig.zmagic_script("draw_icon").main(tmp_path)
    kept, drawn = (Image.open(folder / f"{name}.png") for folder in (PACK / "docs", tmp_path))
    assert kept.size == drawn.size and kept.width / kept.height == pytest.approx(ratio, abs=0.01)
    assert name == "banner" or kept.width <= 400  # the registry's largest
    assert (PACK / "docs" / f"{name}.png").stat().st_size < 150_000
    one, other = (np.asarray(image.convert("RGBA"), np.float32) for image in (kept, drawn))
    # Another version of Pillow may round edges and letters otherwise.
    assert np.abs(one - other).mean() < 0.01 * LEVELS


def test_the_oldest_comfyui_of_the_metadata_is_the_one_that_is_refused_below():
    from zmagic.host.version import OLDEST_HOST

    assert SETUP["tool"]["comfy"]["requires-comfyui"] == f">={OLDEST_HOST}"


def test_every_graph_has_a_small_picture():
    graphs = {file.stem for file in (PACK / "workflows").glob("*.json")}
    pictures = {file.stem: file for file in (PACK / "workflows").glob("*.jpg")}
    assert graphs == pictures.keys()
    assert {name for name, file in pictures.items() if file.stat().st_size > 100_000} == set()


def test_the_public_tests_are_make_test_on_three_systems():
    file = PACK / ".github" / "workflows" / "test.yml"
    (job,) = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].values()
    commands = {run["os"]: run["command"] for run in job["strategy"]["matrix"]["include"]}
    assert {system.split("-")[0] for system in commands} == {"ubuntu", "macos", "windows"}
    recipe = "scripts/setup.py $@"  # of the targets in this Makefile
    assert recipe in (PACK / "Makefile").read_text(encoding="utf-8")
    assert set(commands.values()) == {"make test", "python scripts/setup.py test"}


def test_contributors_are_told_of_every_folder_and_of_files_that_exist():
    page = (PACK / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = {path.parent.name for path in PACK.glob("*/__init__.py")} | {"scripts", "tests"}
    assert {name for name in code if f"`{name}/`" not in page} == set()
    kinds = {path.parent.name for path in (PACK / "tests").glob("*/test_*.py")}
    assert set(re.findall(r"pytest tests/(\w+)", page)) == kinds
    for path in re.findall(r"`([\w./]+(?:/|\.(?:py|toml|md)))`", page):
        assert (PACK / path).exists(), path


def commands_of(page: str, start: str) -> list[list[str]]:
    """The words of the printed commands that begin with ``start``, after it."""
    text = (PACK / "docs" / page).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines() if line.startswith("    "))
    return [shlex.split(line, comments=True)[2:] for line in lines if line.startswith(start)]


def test_the_sweeps_of_the_page_are_what_the_command_understands(pytestconfig):
    sweep = pytestconfig.zmagic_script("sweep")
    printed = commands_of("many_machines.md", "python scripts/sweep.py")
    assert len(printed) >= 3
    for words in printed:
        sweep.parser().parse_args(words)


def test_the_manifest_has_pods_of_one_gpu_that_a_sweep_finds():
    file = PACK / "extras" / "service" / "kubernetes.yaml"
    parts = {part["kind"]: part for part in yaml.safe_load_all(file.read_text(encoding="utf-8"))}
    service, pods = parts["Service"], parts["StatefulSet"]["spec"]
    assert service["spec"]["clusterIP"] == "None"  # each pod has an address of its own
    assert pods["serviceName"] == service["metadata"]["name"] == "comfyui"
    labels = pods["template"]["metadata"]["labels"]
    assert pods["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    (container,) = pods["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert {(probe["path"], probe["port"]) for probe in probes} == {("/system_stats", "http")}
    (port,) = container["ports"]
    assert port["containerPort"] == service["spec"]["ports"][0]["port"] == 8188
    volumes = {volume["name"] for volume in pods["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_the_container_copies_what_exists_and_asks_for_its_health():
    lines = (PACK / "extras" / "service" / "Dockerfile").read_text(encoding="utf-8")
    for source in re.findall(r"^COPY (\S+) ", lines, re.MULTILINE):
        assert (PACK / source).exists(), source
    assert "HEALTHCHECK" in lines and "/system_stats" in lines and "built by nobody" in lines
    assert re.search(r"^USER (?!root)", lines, re.MULTILINE)
