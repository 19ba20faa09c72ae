"""Weights that an ONNX file keeps in other files, read without leaving its folder.

The caches of Hugging Face hold files as symbolic links to where their content lies, the weights as
well as the file that names them: weights may lie beside the file, beside what it points to, and be
links within these.
"""

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

__all__ = ["read_external"]


def read_external(tensors: Iterable, path: Path) -> None:
    """Give the tensors of the file ``path`` whose data lie elsewhere their data.

    Raises:
        ValueError: a place outside the file's own folder is asked for, or it holds no such data.
    """
    folders = _folders(path)
    for tensor in tensors:
        if tensor.data_location != tensor.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        source = _found(path.name, location, folders)
        tensor.raw_data = _read(path.name, source, entries)
        del tensor.external_data[:]
        tensor.data_location = tensor.DEFAULT


def _folders(path: Path) -> list[Path]:
    """The file's folder, and those of what it points to, link by link."""
    folders, links = [path.parent], {path}
    while path.is_symlink():
        target = path.parent / path.readlink()
        if target in links:
            break
        links.add(target)
        folders.append(target.parent)
        path = target
    return list(dict.fromkeys(folder.resolve() for folder in folders))


def _found(name: str, location: str, folders: list[Path]) -> Path:
    inside = not any(
        kind(location).is_absolute() or kind(location).drive or ".." in kind(location).parts
        for kind in (PurePosixPath, PureWindowsPath)
    )
    if not inside:
        raise _outside(name, location)
    # os.path: a name that no file can have is that of none, too.
    found = [folder / location for folder in folders if os.path.isfile(folder / location)]
    if not found or not location:
        raise ValueError(
            f"{name}: its external weights cannot be read: put the file {location!r} beside it\n"
            "(it comes with the same download)"
        )
    for candidate in found:
        real = candidate.resolve()
        if any(real.is_relative_to(folder) for folder in folders):
            return real
    raise _outside(name, location)


def _outside(name: str, location: str) -> ValueError:
    return ValueError(
        f"{name} refers to weights outside its own folder and was not loaded: put them beside the "
        f"file and export it again\n(they are at {location!r})"
    )


def _read(name: str, source: Path, entries: dict[str, str]) -> bytes:
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
    except ValueError as error:
        raise ValueError(
            f"{name} is damaged: export it again\n(the place of its weights is {error})"
        ) from error
    try:
        whole = source.stat().st_size
        if offset < 0 or length < -1 or offset + max(length, 0) > whole:
            raise ValueError(
                f"{name}: its weights in {source.name!r} end too early: download that file again"
            )
        with source.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise ValueError(
            f"{name}: its weights in {source.name!r} cannot be read: check the file's rights\n"
            f"({error.strerror or error})"
        ) from error
