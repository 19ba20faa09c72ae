"""Model files: where they are looked for, which are there, and the message for a missing one."""

import difflib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import folder_paths

__all__ = [
    "ABSENT",
    "ModelKind",
    "Source",
    "find_file",
    "installed_name",
    "list_files",
    "offered",
    "usable_name",
]

# What stands behind the name of a file that a list recommends and that is not there: such a name
# is that of no file, so that ComfyUI reports what graphs ask for as missing.
ABSENT = " (not installed)"

# Names that are quoted of those that are there.
QUOTED = 3

# Characters that are quoted of a value that is no name.
LONGEST_VALUE = 60


@dataclass(frozen=True)
class ModelKind:
    """A kind of model file.

    Args:
        what: what a message calls it, such as "face recognizer".
        folders: the host's names of its folders, searched in this order; the first is recommended.
            Names the host does not know stand for folders of the same name under ``models``.
        extensions: the endings of the files, in lower case.
    """

    what: str
    folders: tuple[str, ...]
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Where a file can be had: address, size and license in words.

    Args:
        name: the name of the file or pack that comes from there; empty: whichever is asked for.
        place: the folder to put it into, inside the first one of its kind.
    """

    where: str
    size: str
    license: str
    name: str = ""
    place: str = ""

    def __str__(self) -> str:
        return f"{self.where} ({self.size}, license: {self.license})"


def search_paths(kind: ModelKind) -> list[Path]:
    """List the folders of a kind, existing or not, those of extra_model_paths.yaml included."""
    paths: list[Path] = []
    for name in kind.folders:
        try:
            known = folder_paths.get_folder_paths(name)
        except KeyError:
            known = []
        default = os.path.join(folder_paths.models_dir, name)
        paths += [Path(path) for path in [*known, default]]
    return list(dict.fromkeys(paths))


def list_files(kind: ModelKind) -> list[str]:
    """List the files of a kind by their path inside its folders, with forward slashes, sorted."""
    return sorted({name for folder in search_paths(kind) for name in _files_in(folder, kind)})


def offered(installed: Sequence[str], recommended: Sequence[str]) -> list[str]:
    """Make the entries of a node's list: what is there, then what is recommended, marked."""
    absent = [f"{name}{ABSENT}" for name in recommended if name not in installed]
    return list(
        dict.fromkeys([*(name for name in recommended if name in installed), *installed, *absent])
    )


def installed_name(name: str) -> str:
    """The name of a file behind an entry of a node's list."""
    return name.removesuffix(ABSENT) if isinstance(name, str) else name


def usable_name(value: object, widget: str) -> bool | str:
    """Check a name for a node's ``validate_inputs``: True for any text, else what is wrong.

    A file that is missing is reported in full where it is needed.
    """
    if isinstance(value, str):
        return True
    return f"{widget!r} must be the name of a file, got {_quoted(value)}"


def find_file(kind: ModelKind, name: str, source: Source) -> Path:
    """Find the full path of the file that a node asks for.

    Args:
        name: a path inside one of the kind's folders, as in ``list_files`` or ``offered``.
        source: where to get the file, for the message.

    Raises:
        ValueError: it is not there; the message says where to put it, where to get it, and what
            is there.
    """
    name = installed_name(name)
    folders = search_paths(kind)
    for folder in folders if isinstance(name, str) and name else ():
        path = Path(os.path.normpath(folder / name))
        # os.path: a name that no file can have is that of none, too.
        if path.is_relative_to(folder) and os.path.isfile(path):
            return path
    raise ValueError(_missing(kind, name, folders[0], source))


def _missing(kind: ModelKind, name: object, folder: Path, source: Source) -> str:
    if not isinstance(name, str):
        return f"expected the name of a {kind.what}, got {_quoted(name)}"
    place = folder / source.place
    if source.name in ("", name):
        get = f"Put it in {place}\nGet it: {source}"
    else:
        get = f"Put it in {folder}\nOr get {source.name}: {source}, for {place}"
    found = list_files(kind)
    near = difflib.get_close_matches(name, found, QUOTED, 0.0) if len(found) > QUOTED else found
    more = f" and {len(found) - len(near)} more" if len(found) > len(near) else ""
    return (
        f"{kind.what} {_quoted(name)} not found. {get}\n"
        f"Searched: {', '.join(kind.folders)}; there are {', '.join(near) or 'no such files'}{more}"
    )


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _files_in(folder: Path, kind: ModelKind) -> Iterator[str]:
    """Files below a folder; of folders that are links each is entered once, under one name."""
    entered: set[str] = set()
    waiting = deque([folder])
    while waiting:
        parent = waiting.popleft()
        real = os.path.realpath(parent)
        if real in entered:
            continue
        entered.add(real)
        try:
            entries = sorted(os.scandir(parent), key=lambda entry: entry.name)
        except OSError:  # not there, or not ours to read
            continue
        inner = [entry for entry in entries if entry.is_dir()]
        # Links last: a folder that is here itself is known by its own place.
        waiting.extendleft(Path(e.path) for e in reversed(inner) if not e.is_symlink())
        waiting.extend(Path(e.path) for e in inner if e.is_symlink())
        for entry in entries:
            if entry.name.lower().endswith(kind.extensions) and entry.is_file():
                yield Path(entry.path).relative_to(folder).as_posix()
