"""The files: ID.jpg, ID_mask.png and one line per picture in labels.jsonl.

ID is IIIII_P: identity and picture. The picture is a JPEG of quality 95 with full colour
resolution: at 128 pixels 42 dB from the rendering (mean of 12 portraits), far closer than the
autoencoders trained on it come, and two fifths the size of a PNG. The mask is an 8-bit PNG of class
numbers:

0 background, 1 skin (with ears and neck), 2 lips (with what an open mouth shows between them),
3 brows, 4 eyes (with upper lashes), 5 hair, 6 clothing, 7 beard (stubble too), 8 glasses (the
frame; the lenses are not modelled), 9 hat.

A picture depends on (seed, identity, picture), the size, the samples and Mitsuba's variant alone,
so a run may stop at any time and continue with the same command.
"""

import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from .geometry import HeadModel
from .people import HAIRCUTS, Identity, Sitting, caption, draw_identity, draw_sitting
from .rendering import Renderer
from .scene import Portrait, build

JPEG_QUALITY = 95
LABELS = "labels.jsonl"


def picture_id(identity: int, picture: int) -> str:
    """The name of a picture's files."""
    return f"{identity:05d}_{picture}"


def split_of(identity: int) -> str:
    """train (80 %), validation or test, by identity: no person is in two of them."""
    return {8: "validation", 9: "test"}.get(identity % 10, "train")


def make_portrait(
    model: HeadModel, renderer: Renderer, seed: int, identity: int, picture: int
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Picture [h, w, 3], classes [h, w] (uint8) and labels of one portrait."""
    person = draw_identity(seed, identity, model.body.phenotype_labels, model.shape_labels)
    sitting = draw_sitting(seed, person, picture)
    portrait = build(model, person, sitting)
    image, mask = renderer.render(portrait, person, sitting)
    return image, mask, describe(person, sitting, portrait)


def describe(person: Identity, sitting: Sitting, portrait: Portrait) -> dict:
    """The line of labels.jsonl. Landmarks run from 0 to 1 from the top left corner."""
    details = asdict(sitting)
    return {
        "id": picture_id(person.number, sitting.picture),
        "identity": person.number,
        "picture": sitting.picture,
        "split": split_of(person.number),
        "caption": caption(person, sitting),
        "gender": person.gender,
        "race": person.race,
        "age": round(person.age, 4),
        "old": person.old,
        "hair": person.hair_name,
        "style": HAIRCUTS[sitting.haircut],
        "haircut": sitting.haircut,
        "beard": sitting.beard not in ("none", "stubble"),
        "beard_style": sitting.beard,
        "smile": sitting.smile,
        "expression": sitting.expression,
        "eyes": person.iris_name,
        "make_up": round(sitting.make_up, 3),
        "glasses": sitting.glasses,
        "hat": sitting.hat,
        "hat_colour": sitting.hat_colour if sitting.hat != "none" else "none",
        "cloth": sitting.cloth_colour,
        "garment": sitting.garment,
        "pattern": sitting.pattern,
        "second_colour": sitting.second_colour if sitting.pattern != "plain" else "none",
        "bg": sitting.background_colour,
        "backdrop": sitting.backdrop,
        "light": round(sitting.light_side, 3),
        "light_height": round(sitting.light_height, 3),
        # of the head against the camera; radians
        "yaw": round(sitting.yaw - sitting.camera_yaw, 3),
        "pitch": round(details["pitch"], 3),
        "roll": round(details["roll"], 3),
        "landmarks": np.round(portrait.points5, 4).tolist(),
        "points68": np.round(portrait.points68, 4).tolist(),
    }


def _write(path: Path, data: bytes) -> None:
    """Writes a file so that it is never seen half written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _encode(image: np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def save(folder: Path, image: np.ndarray, mask: np.ndarray, labels: dict) -> None:
    """Writes the two files of a picture."""
    name = labels["id"]
    jpeg = _encode(image, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    _write(folder / f"{name}_mask.png", _encode(mask, "PNG", optimize=True))
    _write(folder / f"{name}.jpg", jpeg)


def finished(folder: Path) -> set[str]:
    """Pictures with both files and a line of labels; drops a line that was cut off."""
    path = folder / LABELS
    if not path.exists():
        return set()
    whole: dict[str, str] = {}
    text = path.read_text()
    for line in text.splitlines():
        try:
            whole[json.loads(line)["id"]] = line
        except (json.JSONDecodeError, KeyError):
            continue
    complete = {
        name: line
        for name, line in whole.items()
        if (folder / f"{name}.jpg").exists() and (folder / f"{name}_mask.png").exists()
    }
    cleaned = "".join(line + "\n" for line in complete.values())
    if cleaned != text:
        _write(path, cleaned.encode())
    return set(complete)


def append_labels(folder: Path, labels: dict) -> None:
    """Adds a line and makes sure that it reaches the disk."""
    with open(folder / LABELS, "a") as lines:
        lines.write(json.dumps(labels) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def sort_labels(folder: Path) -> None:
    """Brings the lines into the order of the pictures."""
    path = folder / LABELS
    lines = path.read_text().splitlines()
    lines.sort(key=lambda line: json.loads(line)["id"])
    _write(path, "".join(line + "\n" for line in lines).encode())


def wanted(identities: int, pictures: int, first: int = 0) -> Iterator[tuple[int, int]]:
    """(identity, picture) of every portrait, person by person."""
    for identity in range(first, first + identities):
        for picture in range(pictures):
            yield identity, picture
