"""Make the pictures of help pages: ``python scripts/page_pictures.py [NODE ...]``.

For each energy that runs on the demo model without a file of the user, what it does: the picture of
the prompt alone, the guided one of the same noise, and the condition, side by side. Each is made by
a running ComfyUI. Then the pages get them, those in other languages too.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import headless
import help_pages
import numpy as np
import translations
from api_client import Server, running_server
from headless import PACK, available_device
from node_texts import node_schemas
from packages import STATE
from PIL import Image

__all__ = ["MOST_BYTES", "PAGES", "graph_of", "jpeg", "picture_of"]

MOST_BYTES = 25_000
SIDE = 128  # pixels of the demo model's pictures
STEPS = 20
SPIRAL = "zmagic_spiral.png"

# Nodes of the graph that every picture is made by; what a link gives by its number.
LOADER, NETWORKS, PLACE, ENERGY = "loader", "networks", "place", "energy"
PHOTOGRAPH, WOMAN, LAYOUT = ([LOADER, number] for number in (3, 4, 6))
OPENCLIP, SEGMENTER, RECOGNIZER, LANDMARKS = ([NETWORKS, number] for number in range(4))
DRAWN = ["drawn", 0]
FILES = {3: "photograph.jpg", 4: "woman.jpg", 6: "layout.jpg"}


@dataclass(frozen=True)
class Shown:
    """What the picture of a page shows.

    Args:
        prompt: what the model is told.
        seed: of the noise.
        inputs: of the energy, where they are not the node's defaults.
        words: the condition, where no picture shows it.
        strength: of the guidance.
        copies: how often the pictures are repeated to the side and downwards.
    """

    prompt: str
    seed: int
    inputs: dict[str, Any] = field(default_factory=dict)
    words: str = ""
    strength: float = 0.4
    copies: int = 1


COLORS = "#264653, #2a9d8f, #e9c46a, #e76f51"
BLOND = "a photo of a young woman with blond hair, wearing blue"
BROWN = "a photo of a young woman with brown hair, wearing white"

PAGES = {
    "ZMagicText": Shown(
        "a photo of a young woman wearing blue",
        1,
        {"openclip": OPENCLIP, "prompt": "a photo of a person with red hair"},
        '"a photo of a person with red hair"',
    ),
    "ZMagicFaceIdentity": Shown(
        BLOND, 1, {"recognizer": RECOGNIZER, "reference": WOMAN, "face_location": [PLACE, 0]}
    ),
    "ZMagicSegmentation": Shown(BROWN, 1, {"segmenter": SEGMENTER, "target_image": LAYOUT}),
    "ZMagicLandmarks": Shown(
        BROWN,
        1,
        {"landmark_network": LANDMARKS, "target_image": LAYOUT, "face_location": [PLACE, 0]},
    ),
    "ZMagicStyle": Shown(BROWN, 1, {"reference": PHOTOGRAPH, "openclip": OPENCLIP}),
    "ZMagicImageSimilarity": Shown(
        "a photo of a person", 1, {"reference": WOMAN, "openclip": OPENCLIP}
    ),
    "ZMagicPreference": Shown(
        BROWN,
        1,
        {
            "openclip": OPENCLIP,
            "scorer": "CLIP-IQA",
            "scorer.good": "a photo of a person smiling",
            "scorer.bad": "a photo of a person not smiling",
        },
        '"a photo of a person smiling", rather than "a photo of a person not smiling"',
    ),
    "ZMagicColorPalette": Shown(BROWN, 1, {"colors": COLORS}),
    "ZMagicSketch": Shown(BROWN, 1, {"reference": PHOTOGRAPH}),
    "ZMagicReferenceImage": Shown(BROWN, 1, {"reference": PHOTOGRAPH, "blur": 0.08}),
    "ZMagicBrightnessMap": Shown(BROWN, 1, {"reference": DRAWN, "blur": 0.03}),
    "ZMagicSeamless": Shown(BROWN, 1, {}, "opposite edges meet (four copies)", copies=2),
    "ZMagicSymmetry": Shown(BROWN, 1, {}, "left and right are alike"),
    "ZMagicSharpness": Shown(BROWN, 1, {"sharpness": -0.8}, "sharpness -0.8: soft"),
}


def main() -> None:
    """Make the pictures, and give them to the pages."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("nodes", nargs="*", metavar="NODE", help=f"Of: {', '.join(PAGES)}.")
    named = parser.parse_args().nodes
    if unknown := set(named) - set(PAGES):
        parser.error(f"no picture is made for: {', '.join(sorted(unknown))}")
    headless.load_pack()
    help_pages.PICTURES.mkdir(exist_ok=True)
    _spiral().save(_folder("input") / SPIRAL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cpu = available_device() == "cpu"
        with running_server(folder, folder / "server.log", cpu=cpu) as server:
            for node in named or PAGES:
                file = help_pages.PICTURES / f"{node}.jpg"
                file.write_bytes(jpeg(picture_of(server, node)))
                print(file.relative_to(PACK), flush=True)
    help_pages.main()
    for folder in sorted(translations.LOCALES.iterdir()):
        translations.update(translations.Language(folder.name), node_schemas(), [])


def picture_of(server: Server, node: str, steps: int = STEPS) -> Image.Image:
    """Run the node's graph; its pictures and the condition under their labels."""
    from zmagic.guidance.contact_sheet import contact_sheet, sentence

    shown = PAGES[node]
    outputs = server.run(graph_of(node, _defaults(server, node), steps))
    made = {}
    for label in ("prompt alone", "guided"):
        (image,) = outputs[label]["images"]
        made[label] = _repeated(Image.open(BytesIO(server.picture(image))), shown.copies)
    side = made["guided"].width
    if shown.words:
        condition = sentence(shown.words, 2 * SIDE, 2 * SIDE)
    else:
        condition = _tensor(_condition(shown.inputs).resize((side, side)))
    columns = [(label, _tensor(picture)) for label, picture in made.items()]
    sheet = contact_sheet([*columns, ("condition", condition)])[0]
    return Image.fromarray((sheet.numpy() * 255.0).round().astype(np.uint8))


def graph_of(node: str, defaults: dict[str, Any], steps: int = STEPS) -> dict[str, dict]:
    """The prompt that makes a page's pictures, guided and not, saved under their labels.

    Args:
        node: the energy, one of PAGES.
        defaults: what its inputs are where nothing else is said.
        steps: of the sampler.
    """
    shown = PAGES[node]
    place = {"method": "fixed box", "method.reference_is": "framed like the picture"}
    place |= {"method.x": 0.3, "method.y": 0.24, "method.width": 0.39, "method.height": 0.51}
    place |= {
        "method.refresh_every": 3,
        "method.landmark_network": LANDMARKS,
        "detector": "buffalo_l (not installed)",
    }
    settings = {"preset": "balanced", "strength": shown.strength, "calibrate": False}
    settings |= {"guide_start": 0.0, "guide_end": 1.0, "decoder": "auto", "memory": "auto"}
    sampler = {"seed": shown.seed, "steps": steps, "cfg": 3.0, "denoise": 1.0, "candidates": 1}
    sampler |= {"sampler_name": "dpmpp_2m", "scheduler": "karras", "compare": True}
    sampler |= {"model": [LOADER, 0], "positive": ["told", 0], "negative": ["untold", 0]}
    sampler |= {"latent_image": ["empty", 0], "conditions": [ENERGY, 0], "vae": [LOADER, 2]}
    nodes = {
        LOADER: ("ZMagicLoadDemo", {}),
        NETWORKS: ("ZMagicLoadDemoNetworks", {}),
        "told": ("CLIPTextEncode", {"clip": [LOADER, 1], "text": shown.prompt}),
        "untold": ("CLIPTextEncode", {"clip": [LOADER, 1], "text": ""}),
        "empty": ("EmptyLatentImage", {"width": SIDE, "height": SIDE, "batch_size": 1}),
        PLACE: ("ZMagicLocateFace", place),
        "drawn": ("LoadImage", {"image": SPIRAL}),
        ENERGY: (node, defaults | shown.inputs),
        "settings": ("ZMagicSettings", settings),
        "sampler": ("ZMagicSampler", sampler | {"settings": ["settings", 0]}),
    }
    for label, output in (("guided", 0), ("prompt alone", 3)):
        nodes[f"{label}, decoded"] = (
            "VAEDecode",
            {"samples": ["sampler", output], "vae": [LOADER, 2]},
        )
        saved = {"images": [f"{label}, decoded", 0], "filename_prefix": node}
        nodes[label] = ("SaveImage", saved)
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def _defaults(server: Server, node: str) -> dict[str, Any]:
    """What a node's inputs are at first, those aside that are wires or inputs of a choice."""
    known = server.get(f"/object_info/{node}")[node]["input"]
    found = {}
    for name, (kind, *about) in (known.get("required", {}) | known.get("optional", {})).items():
        options = about[0] if about else {}
        if "default" in options:
            found[name] = options["default"]
        elif kind == "COMBO":
            found[name] = options["options"][0]
    return found


def _condition(inputs: dict[str, Any]) -> Image.Image:
    """The picture that the condition is taken from."""
    if "colors" in inputs:
        return _swatches(inputs["colors"])
    link = inputs.get("reference") or inputs["target_image"]
    if link == DRAWN:
        return _spiral()
    return Image.open(PACK / "demo_models" / FILES[link[1]]).convert("RGB")


def _swatches(colors: str) -> Image.Image:
    """Stripes of colors that are written as hex numbers."""
    names = [name.strip() for name in colors.split(",")]
    stripes = Image.new("RGB", (SIDE, SIDE))
    for k, name in enumerate(names):
        stripes.paste(name, (k * SIDE // len(names), 0, (k + 1) * SIDE // len(names), SIDE))
    return stripes


def _spiral() -> Image.Image:
    """A spiral of two arms, dark on bright."""
    y, x = np.mgrid[-1.0 : 1.0 : SIDE * 1j, -1.0 : 1.0 : SIDE * 1j]
    phase = 2.0 * np.arctan2(y, x) + 12.0 * np.hypot(x, y)
    return Image.fromarray(np.uint8(255 * (np.sin(phase) > 0.0))).convert("RGB")


def _repeated(picture: Image.Image, copies: int) -> Image.Image:
    wide = Image.new("RGB", (copies * picture.width, copies * picture.height))
    for k in range(copies**2):
        wide.paste(picture, (k % copies * picture.width, k // copies * picture.height))
    return wide


def _tensor(picture: Image.Image) -> Any:
    import torch

    return torch.from_numpy(np.array(picture)).float().div(255.0)[None]


def jpeg(picture: Image.Image) -> bytes:
    """The picture as a file of at most MOST_BYTES, as good as that allows."""
    for quality in range(90, 5, -5):
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= MOST_BYTES:
            break
    return file.getvalue()


def _folder(name: str) -> Path:
    folder = STATE / "server" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main()
