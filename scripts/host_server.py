"""How to start things in ``.venv``, above all the host's server, without writing to the host."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from headless import HOST, PACK, host_path
from packages import STATE, venv_python

PACK_NAME = "z-magic"


def uses_own_host() -> bool:
    """Return whether the host is the one under ``.host``, not one of the user's."""
    named = os.environ.get("COMFYUI_PATH")
    return Path(named).resolve() == HOST if named else PACK.parent.name != "custom_nodes"


def name_in(host: Path) -> str | None:
    """Return the name of this pack in the ``custom_nodes`` of ``host``, None if it is not there."""
    folder = host / "custom_nodes"
    entries = folder.iterdir() if folder.is_dir() else ()
    return next((entry.name for entry in entries if entry.resolve() == PACK), None)


def link_pack(folder: Path) -> None:
    """Make the pack appear in ``folder``: a symbolic link, on Windows a junction."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / PACK_NAME
    if link.resolve() == PACK:
        return
    link.unlink(missing_ok=True)  # it points to where the pack was before it moved
    if os.name == "nt":  # a symbolic link needs rights there, a junction none
        import _winapi

        _winapi.CreateJunction(str(PACK), str(link))
    else:
        link.symlink_to(PACK, target_is_directory=True)


def environment() -> dict[str, str]:
    """The environment variables for what runs in ``.venv``: no downloads, no foreign modules.

    Python would leave its cache files next to the modules of a user's host; they go elsewhere.
    """
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONNOUSERSITE": "1"}
    variables["PYTHONUNBUFFERED"] = "1"  # what is printed shows at once, in a pipe too
    variables.pop("PYTHONPATH", None)
    # Threads that wait for others sleep: on a busy machine spinning ones slow all down tenfold.
    variables.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not uses_own_host():
        variables["PYTHONPYCACHEPREFIX"] = str(STATE / "pycache")
    return variables


def server_command(
    port: int,
    output_directory: Path,
    *,
    cpu: bool = False,
    models: dict[str, Path] | None = None,
    python: Path | str | None = None,
    arguments: Sequence[str] = (),
) -> list[str]:
    """The command line that starts the host's server on this machine alone, with only this pack.

    ``cpu`` keeps the host off any accelerator; set it where PyTorch finds none. ``models`` maps a
    kind of model, such as ``checkpoints``, to one more folder to look for it. ``python`` is
    another interpreter than that of ``.venv``; ``arguments`` are more of the host's own. Run the
    command with ``environment()``. Everything the server writes goes to ``output_directory`` and
    ``.host``. Raises FileNotFoundError when there is no host yet.
    """
    host = host_path()
    folders = {name: STATE / "server" / name for name in ("input", "temp", "user")}
    folders["output"] = Path(output_directory).resolve()
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    command = [python or venv_python(), host / "main.py", "--listen", "127.0.0.1", "--port", port]
    for name, folder in folders.items():
        command += [f"--{name}-directory", folder]
    command += ["--extra-model-paths-config", write_search_paths(host, models or {})]
    command += ["--disable-auto-launch", "--disable-all-custom-nodes"]
    command += ["--whitelist-custom-nodes", name_in(host) or PACK_NAME]
    if knows_argument(host, "--disable-api-nodes"):
        command += ["--disable-api-nodes"]
    if knows_argument(host, "--database-url"):
        command += ["--database-url", "sqlite:///:memory:"]
    return [str(part) for part in command] + ["--cpu"] * cpu + list(arguments)


def knows_argument(host: Path, argument: str) -> bool:
    """Return whether the command line of this host's version has an argument like ``--novram``."""
    known = (host / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    return f'"{argument}"' in known


def write_search_paths(host: Path, models: dict[str, Path]) -> Path:
    """Write the file that tells the host where else to look: for models and for this pack."""
    paths = {kind: str(Path(folder).resolve()) for kind, folder in models.items()}
    if name_in(host) is None:
        paths["custom_nodes"] = str(STATE / "custom_nodes")
    file = STATE / "extra_model_paths.yaml"
    text = json.dumps({"z_magic": paths})  # JSON is YAML too
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        # In one stroke: another server may be reading it, which starts beside this one.
        partial = file.with_name(f"{file.name}.{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    return file
