"""The note of a graph: what to change first, which files it needs, what the report tells."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

from graph_files import ModelFile, files_of
from headless import PACK

__all__ = ["Texts", "note_of", "read_texts"]

SHIPPED = PACK / "extras"  # pictures for Load Image


@dataclass(frozen=True)
class Texts:
    """What ``workflows/graphs.toml`` says of a graph."""

    name: str
    change: str
    report: str
    inputs: list[list[str]]
    folded: tuple[str, ...] = ()


def read_texts() -> dict[str, Texts]:
    """The texts of every graph, by the name of its prompt in ``workflows/api``."""
    content = (PACK / "workflows" / "graphs.toml").read_text(encoding="utf-8")
    return {api: Texts(**texts) for api, texts in tomllib.loads(content).items()}


def note_of(api: dict, texts: Texts) -> str:
    """The Markdown of a graph's note."""
    return "\n\n".join(
        [
            f"**What to change first**\n\n{texts.change.strip()}",
            "\n".join(_files(files_of(api))),
            *_pictures(api),
            f"**After a run** {_reporter(api)} shows {texts.report}.",
        ]
    )


def _reporter(api: dict) -> str:
    samplers = [n for n in api.values() if n["class_type"] == "ZMagicSampler"]
    names = {0: "*Z-Magic Report*", 1: "*Z-Magic Sampler*"}
    return names.get(len(samplers), "each *Sampler*")


def _files(files: list[ModelFile]) -> Iterator[str]:
    if not files:
        yield "**Files** None: the model and its networks come with the pack."
        return
    yield "**Files**, each in a folder of ComfyUI's **models**\n"
    for file in files:
        name = f"[{file.name}]({file.link})" if file.link else file.name
        about = [f"in **{file.folder}**", file.size, file.license, file.where and _from(file.where)]
        yield f"- {name} {', '.join(filter(None, about))}" + (
            f". Or {file.instead}" if file.instead else ""
        )


def _from(where: str) -> str:
    return f"from {where}"


def _pictures(api: dict) -> Iterator[str]:
    named = [node["inputs"]["image"] for node in api.values() if node["class_type"] == "LoadImage"]
    shipped = [name for name in dict.fromkeys(named) if (SHIPPED / name).is_file()]
    if shipped:
        names = " and ".join(f"*{name}*" for name in shipped)
        yield (
            f"**Pictures** {names}: in the folder *extras* of this pack; drag each onto its "
            "*Load Image*, or choose your own."
        )
