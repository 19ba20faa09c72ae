"""Files that are not what their names say, recognized after the usual failures of downloads.

For each cause there is one sentence with what to do about it.
"""

import json
import zipfile
from pathlib import Path

__all__ = ["mishap"]

# Enough to tell a text from a page from an archive.
HEAD = 512

POINTER = b"version https://git-lfs.github.com/spec/"
AGAIN = "download it again"
EXPORTED = "get the network as its authors exported it (ONNX or safetensors)"

# The longest list of tensors that a safetensors file may have.
LARGEST_HEADER = 100_000_000


def mishap(path: Path) -> str | None:
    """Say what is wrong with a file that could not be read, None where nothing is known.

    Returns:
        The rest of a sentence that ends ".. but"; its first line says what to do.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        return f"one that cannot be opened: check its rights\n({error.strerror or error})"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head.strip(b"\0"):
        return f"an empty one: {AGAIN}"
    if text.startswith(POINTER):
        return (
            "a Git LFS pointer: download the file itself\n"
            "(its page has a download button; or run 'git lfs pull' where it was cloned)"
        )
    if text[:200].lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return (
            "a web page: download the file itself\n"
            "(by the page's download button, or the link that has /resolve/ or /raw/ in it)"
        )
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    if head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ")):
        return "a packed archive: unpack it and use the file inside"
    if len(head) > 1 and head[0] == 0x80 and head[1] in range(2, 6):
        return f"a checkpoint of PyTorch (pickle): {EXPORTED}"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return _safetensors(path, int.from_bytes(head[:8], "little"))
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        first = text.split(b"\n")[0][:80].decode("ascii").strip()
        return f"a text: {AGAIN}\n(it begins with {first!r})"
    return None


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return f"a packed file that was cut: {AGAIN}"
    if any(name.endswith("constants.pkl") for name in names):
        return f"a TorchScript file of PyTorch: {EXPORTED}"
    if any(name.endswith("data.pkl") for name in names):
        return f"a checkpoint of PyTorch: {EXPORTED}"
    return "a packed archive: unpack it and use the file inside"


def _safetensors(path: Path, header: int) -> str:
    """Say what is wrong with a safetensors file, above all whether it was cut."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            file.seek(8)
            tensors = json.loads(file.read(min(header, LARGEST_HEADER)))
        end = 8 + header + max(t["data_offsets"][1] for k, t in tensors.items() if k[:2] != "__")
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        end = size + 1
    if end > size:
        return f"a download that was cut: {AGAIN}"
    return "one of weights alone (safetensors): load it as such, or export its network to ONNX"
