"""Real face networks for the tests, from a package of the npm registry (MIT license).

Face embedding, landmarks, detection, age, gender, pose and expression as ONNX files: small, trained
on real faces, and free to use. Nothing in the pack itself needs them.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import tarfile
from pathlib import Path

from packages import STATE, SetupError, run_quietly, say

FOLDER = STATE / "networks" / "face"

PACKAGE = "faceplugin-face-recognition-js@0.0.1"
ARCHIVE = "faceplugin-face-recognition-js-0.0.1.tgz"
SHA512 = "shriXjd4zJHEwhK1jHK+bWo8Vv6Vu9B/w6RRsd4AFtNM/jaI2vhuOamOSMl9qQmLd8WlQ7dgqN+3C2iOi5pXWw=="
MEMBERS = "package/model/"


def fetch_face_networks() -> Path:
    """Have the networks in ``.host/networks/face`` and return that folder. Raises SetupError."""
    stamp = FOLDER / "package.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == PACKAGE:
        return FOLDER
    npm = shutil.which("npm")
    if npm is None:
        raise SetupError(
            "the tests use face networks from the npm registry, and there is no npm on this "
            "machine: install Node.js, which brings it"
        )
    say("downloading face networks for the tests")
    archives = STATE / "archives"
    archives.mkdir(exist_ok=True)
    archive = archives / ARCHIVE
    if not _is_intact(archive):
        archive.unlink(missing_ok=True)
        command = [npm, "pack", PACKAGE, "--pack-destination", archives]
        run_quietly(command, purpose=f"downloading {PACKAGE}")
    if not _is_intact(archive):
        raise SetupError(f"{archive} is not the file that was expected; delete it and try again")
    _unpack(archive)
    stamp.write_text(PACKAGE, encoding="utf-8")
    return FOLDER


def _is_intact(archive: Path) -> bool:
    if not archive.is_file():
        return False
    digest = hashlib.sha512(archive.read_bytes()).digest()
    return base64.b64encode(digest).decode() == SHA512


def _unpack(archive: Path) -> None:
    """The ONNX files alone: nothing else of the package is used."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as package:
        for member in package:
            name = member.name.removeprefix(MEMBERS)
            if member.name.startswith(MEMBERS) and member.isfile() and "/" not in name:
                with package.extractfile(member) as source:
                    (FOLDER / name).write_bytes(source.read())
