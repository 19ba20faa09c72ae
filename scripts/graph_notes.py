"""The note of a graph: what to change first, which files it needs, what the report tells."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from headless import PACK, load_host, load_pack

__all__ = ["ModelFile", "Texts", "files_of", "note_of", "read_texts"]

HUB = "https://huggingface.co"
AURAFACE = f"{HUB}/fal/AuraFace-v1/resolve/main"
RESEARCH = "non-commercial research only"

SHIPPED = PACK / "examples"  # pictures for Load Image


@dataclass(frozen=True)
class Texts:
    """What ``workflows/graphs.toml`` says of a graph."""

    name: str
    change: str
    report: str
    inputs: list[list[str]]
    folded: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelFile:
    """A file that a graph names, and where it is from.

    Args:
        name: as it must be called.
        folder: inside ComfyUI's ``models``.
        link: what downloads it; of this alone the frontend offers a download.
        size: in words.
        license: in words.
        where: in place of a link, what the node itself says where it cannot find the file.
        instead: another file for the same, where its license is another.
    """

    name: str
    folder: str
    link: str
    size: str
    license: str
    where: str = ""
    instead: str = ""


CHECKPOINTS = (
    ModelFile(
        "v1-5-pruned-emaonly-fp16.safetensors",
        "checkpoints",
        f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
        "v1-5-pruned-emaonly-fp16.safetensors",
        "2.1 GB",
        "CreativeML Open RAIL-M",
    ),
    ModelFile(
        "sd_xl_base_1.0.safetensors",
        "checkpoints",
        f"{HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
        "6.9 GB",
        "CreativeML Open RAIL++-M",
    ),
    ModelFile(
        "flux1-dev-fp8.safetensors",
        "checkpoints",
        f"{HUB}/Comfy-Org/flux1-dev/resolve/main/flux1-dev-fp8.safetensors",
        "17 GB",
        "FLUX.1 [dev] Non-Commercial",
    ),
)
FACES = (
    ModelFile(
        "glintr100.onnx",
        "insightface",
        f"{AURAFACE}/glintr100.onnx",
        "261 MB",
        "Apache-2.0",
        instead="the pack buffalo_l (research only)",
    ),
    ModelFile(
        "scrfd_10g_bnkps.onnx",
        "insightface",
        f"{AURAFACE}/scrfd_10g_bnkps.onnx",
        "17 MB",
        RESEARCH,
        instead="version-RFB-320.onnx (MIT), which aligns less exactly",
    ),
    ModelFile(
        "2d106det.onnx",
        "insightface",
        f"{AURAFACE}/2d106det.onnx",
        "5 MB",
        RESEARCH,
        instead="a network for 68 points of your own",
    ),
)


def read_texts() -> dict[str, Texts]:
    """The texts of every graph, by the name of its prompt in ``workflows/api``."""
    content = (PACK / "workflows" / "graphs.toml").read_text(encoding="utf-8")
    return {api: Texts(**texts) for api, texts in tomllib.loads(content).items()}


def files_of(api: dict) -> list[ModelFile]:
    """The model files that a prompt names, in its order."""
    values = [value for node in api.values() for value in node["inputs"].values()]
    named = dict.fromkeys(value for value in values if isinstance(value, str))
    return [_known_files()[value] for value in named if value in _known_files()]


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


@cache
def _known_files() -> dict[str, ModelFile]:
    """Those of this table, and those that the nodes know where to get."""
    load_host()
    load_pack()
    from zmagic.host.image_networks import SEGMENTER_SOURCE
    from zmagic.host.openclip_weights import PUBLISHED

    clip = [
        ModelFile(
            name,
            "clip_vision",
            f"{source.where.replace(', ', '/resolve/main/')}",
            source.size,
            source.license,
        )
        for name, source in PUBLISHED.items()
    ]
    parser = ModelFile(
        SEGMENTER_SOURCE.name,
        "onnx",
        "",
        SEGMENTER_SOURCE.size,
        SEGMENTER_SOURCE.license,
        SEGMENTER_SOURCE.where,
    )
    return {file.name: file for file in (*CHECKPOINTS, *FACES, *clip, parser)}


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
            f"**Pictures** {names}: in the folder *examples* of this pack; drag each onto its "
            "*Load Image*, or choose your own."
        )
