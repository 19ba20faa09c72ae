"""Model files: where they are looked for, what is there, and what to say when one is missing."""

import os
from dataclasses import dataclass
from pathlib import Path

import folder_paths

__all__ = ["ModelKind", "Source", "find_file", "list_files"]


@dataclass(frozen=True)
class ModelKind:
    """A kind of model file.

    Args:
        what: as a message calls it, such as "face recogniser".
        folders: the host's names of folders, searched in this order; the first is recommended.
            Names the host does not know stand for folders of the same name under ``models``.
        extensions: of the files, lower case.
    """

    what: str
    folders: tuple[str, ...]
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Where a file can be had: address, size and licence in words."""

    where: str
    size: str
    licence: str

    def __str__(self) -> str:
        return f"{self.where} ({self.size}, licence: {self.licence})"


def search_paths(kind: ModelKind) -> list[Path]:
    """The folders of a kind, existing or not, those of extra_model_paths.yaml included."""
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
    """Files of a kind by their path inside its folders, with forward slashes, sorted."""
    return sorted({name for folder in search_paths(kind) for name in _files_in(folder, kind)})


def find_file(kind: ModelKind, name: str, owner: str, source: Source) -> Path:
    """The full path of the file that a node asks for.

    Args:
        name: path inside one of the kind's folders, as in ``list_files``.
        owner: the node's title; the message starts with it.
        source: where to get the file, for the message.

    Raises:
        ValueError: it is not there; the message says where it was looked for, where to get it,
            and what is there.
    """
    folders = search_paths(kind)
    for folder in folders:
        path = Path(os.path.normpath(folder / name))
        if name and path.is_relative_to(folder) and path.is_file():
            return path
    found = ", ".join(list_files(kind)) or "none"
    others = ", ".join(str(folder) for folder in folders[1:])
    raise ValueError(
        f"{owner}: {kind.what} '{name}' not found. Put it in {folders[0]}"
        f"{f' (also searched: {others})' if others else ''}. Get it: {source}. "
        f"Files found there now: {found}"
    )


def _files_in(folder: Path, kind: ModelKind) -> list[str]:
    return [
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(kind.extensions)
    ]
