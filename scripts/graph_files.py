"""The model files that a graph names: where they belong and where they are from."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from headless import PACK, load_host, load_pack

__all__ = ["ModelFile", "describe", "files_of", "registered"]

FILES = PACK / "workflows" / "files.toml"
KINDS = (".safetensors", ".sft", ".onnx", ".gguf", ".ckpt", ".pth", ".pt", ".bin")
NOTES = ("MarkdownNote", "Note")


@dataclass(frozen=True)
class ModelFile:
    """A file that a graph names, and where it is from.

    Args:
        name: as it must be called.
        folder: inside ComfyUI's ``models``.
        size: in words.
        license: in words.
        link: what downloads it; of this alone the frontend offers a download.
        where: in place of a link, what the node itself says where it cannot find the file.
        instead: another file for the same, where its license is another.
    """

    name: str
    folder: str
    size: str
    license: str
    link: str = ""
    where: str = ""
    instead: str = ""


def files_of(api: dict) -> list[ModelFile]:
    """The model files that a prompt names, in its order.

    Raises KeyError for a file of which nothing is known, and says where to write it down.
    """
    values = [value for node in api.values() for value in node["inputs"].values()]
    named = dict.fromkeys(v for v in values if isinstance(v, str) and v.endswith(KINDS))
    if unknown := [name for name in named if name not in known_files()]:
        raise KeyError(f"write down in {FILES.relative_to(PACK)} where this is from: {unknown}")
    return [known_files()[name] for name in named]


@cache
def known_files() -> dict[str, ModelFile]:
    """The model files, by name, that are written down or that the nodes know where to get."""
    content = tomllib.loads(FILES.read_text(encoding="utf-8"))
    written = [ModelFile(name, **about) for name, about in content.items()]
    return {file.name: file for file in (*written, *_of_nodes())}


def _of_nodes() -> Iterable[ModelFile]:
    load_host()
    load_pack()
    from zmagic.host.image_networks import SEGMENTER_SOURCE
    from zmagic.host.openclip_weights import PUBLISHED

    for name, source in PUBLISHED.items():
        page, _, file = source.where.partition(", ")
        known = {"link": f"{page}/resolve/main/{file}"}
        if ", " in file or ";" in file:  # more is said of it than where it is
            known = {"where": source.where}
        yield ModelFile(name, "clip_vision", source.size, source.license, **known)
    parser = SEGMENTER_SOURCE
    yield ModelFile(parser.name, "onnx", parser.size, parser.license, where=parser.where)


@cache
def registered() -> dict[str, str]:
    """The registry's name of this pack and its version, which ComfyUI's Manager reads of nodes."""
    project = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"cnr_id": project["name"], "ver": project["version"]}


def describe(nodes: list[dict], api: dict) -> None:
    """Write into nodes of a graph file where they, and the files they name, can be had."""
    files = {file.name: file for file in files_of(api)}
    for node in nodes:
        if node["type"].startswith("ZMagic"):
            node["properties"] |= registered()
        if node["type"] in NOTES:
            continue
        named = [files[str(v)] for v in node.get("widgets_values") or () if str(v) in files]
        if linked := [file for file in named if file.link]:
            node["properties"]["models"] = [
                {"name": file.name, "url": file.link, "directory": file.folder} for file in linked
            ]
