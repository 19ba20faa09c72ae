"""Face networks in the folders where other packs keep them: insightface's packs and single files.

insightface's library unpacks a pack to ``insightface/models/<pack>``. Some put the packs directly
into ``insightface``, and antelopev2's archive unpacks to a folder inside the folder.
"""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from ..guidance.networks.onnx_header import read_onnx_header
from ..guidance.networks.onnx_signature import OnnxSignature
from ..guidance.optional_packages import needed
from .model_files import ModelKind, Source, find_file, installed_name, list_files, offered

__all__ = ["PACK_PLACE", "USUAL_PACK", "choices", "find_network", "first_choice"]

# The folder that insightface's library makes for its packs, inside its own.
LIBRARY_FOLDER = "models"

# The pack that most people have, and where it goes inside models/insightface.
USUAL_PACK = "buffalo_l"
PACK_PLACE = f"{LIBRARY_FOLDER}/{USUAL_PACK}"


def choices(kind: ModelKind, usual: str) -> list[str]:
    """List what a node offers: packs, the usual one first, then single files.

    The usual pack is in the list, marked, where it is not installed, too.
    """
    names = list_files(kind)
    packs = _packs(names)
    inside = {name for files in packs.values() for name in files}
    return offered([*packs, *(name for name in names if name not in inside)], [usual])


def first_choice(options: Sequence[str]) -> str:
    """Choose the default of ``choices``: the usual pack, else another one, else the marked one."""
    single = (".onnx", ".safetensors")
    return next(name for name in options if not name.lower().endswith(single))


def find_network(
    kind: ModelKind,
    name: str,
    source: Source,
    fits: Callable[[OnnxSignature], bool],
    known: Sequence[str] = (),
) -> Path:
    """Find the file of a network that a node asks for, by the name of its pack or by its own.

    Args:
        name: one of ``choices``.
        source: where to get the usual pack, for the message.
        fits: tells whether a file of a pack is the network that is wanted.
        known: the names that such files have in published packs; these are looked at first.

    Raises:
        ValueError: there is no such file, no such network in the pack, or the onnx package, which
            tells the files of a pack apart, is not installed.
    """
    name = installed_name(name)
    files = _packs(list_files(kind)).get(name) if isinstance(name, str) else None
    if files is None:
        return find_file(kind, name, source)
    needed("onnx")
    found = []
    for file in sorted(files, key=lambda file: _rank(file, known)):
        path = find_file(kind, file, source)
        try:
            header = read_onnx_header(path)
        except ValueError as error:
            found.append(str(error))
            continue
        if fits(header):
            return path
        found.append(f"{path.name} {header}")
    raise ValueError(
        f"the pack {name!r} holds no {kind.what}: choose another one, or get {source}\n"
        f"(its files are {', '.join(found)})"
    )


def _packs(names: Sequence[str]) -> dict[str, list[str]]:
    """Names of packs and the ONNX files below each, from the files of the kind's folders."""
    packs: dict[str, list[str]] = {}
    for name in names:
        parts = PurePosixPath(name).parts
        if parts[0] == LIBRARY_FOLDER:
            parts = parts[1:]
        if len(parts) > 1 and name.lower().endswith(".onnx"):
            packs.setdefault(parts[0], []).append(name)
    return packs


def _rank(file: str, known: Sequence[str]) -> int:
    name = PurePosixPath(file).name
    return known.index(name) if name in known else len(known)
