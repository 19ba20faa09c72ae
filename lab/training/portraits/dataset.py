"""The files: ID.jpg, ID_mask.png and one line per picture in labels.jsonl.

ID is IIIII_P: identity and picture. The picture is a JPEG of quality 95 with full color
resolution: at 128 pixels 42 dB from the rendering (mean of 12 portraits), far closer than the
autoencoders trained on it come, and two fifths the size of a PNG. The mask is an 8-bit PNG of class
numbers:

0 background, 1 skin (with ears and neck), 2 lips (with what an open mouth shows between them),
3 brows, 4 eyes (with upper lashes), 5 hair, 6 clothing, 7 beard (stubble too), 8 glasses (the
frame; the lenses are not modeled), 9 hat.

A picture depends on (seed, identity, picture), the size, the samples and Mitsuba's variant alone,
so a run may stop at any time and continue with the same command. Nothing here needs anny or
mitsuba.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..data import split_of
from ..running import write_whole
from .people import Identity, Sitting, caption
from .scene import Portrait

__all__ = [
    "append_labels",
    "describe",
    "finished",
    "picture_id",
    "save",
    "sort_labels",
    "wanted",
]

JPEG_QUALITY = 95
LABELS = "labels.jsonl"


def picture_id(identity: int, picture: int) -> str:
    """The name of a picture's files."""
    return f"{identity:05d}_{picture}"


def wanted(identities: int, pictures: int, first: int = 0) -> Iterator[tuple[int, int]]:
    """(identity, picture) of every portrait, person by person."""
    for identity in range(first, first + identities):
        for picture in range(pictures):
            yield identity, picture


def describe(person: Identity, sitting: Sitting, portrait: Portrait) -> dict:
    """The line of labels.jsonl.

    `landmarks` are the five points of the face, `points68` iBUG's, both in fractions of the picture
    from its top left corner. Radians: `yaw` of the head against the camera, `pitch` and `roll`
    against the shoulders. `beard` is all that is more than stubble.
    """
    return {
        "id": picture_id(person.number, sitting.picture),
        "identity": person.number,
        "picture": sitting.picture,
        "sitting": sitting.number,
        "coloring": sitting.coloring,
        "split": split_of(person.number),
        "caption": caption(person, sitting),
        "gender": person.gender,
        "race": person.race,
        "age": round(person.age, 4),
        "old": person.old,
        "hair": sitting.hair_name,
        "style": sitting.style,
        "haircut": sitting.haircut,
        "beard": sitting.beard not in ("none", "stubble"),
        "beard_style": sitting.beard,
        "smile": sitting.smile,
        "expression": sitting.expression,
        "eyes": person.iris_name,
        "make_up": round(sitting.make_up, 3),
        "glasses": sitting.glasses,
        "hat": sitting.hat,
        "hat_color": sitting.hat_color if sitting.hat != "none" else "none",
        "cloth": sitting.cloth_color,
        "garment": sitting.garment,
        "bg": sitting.background_color,
        "backdrop": sitting.backdrop,
        "light": round(sitting.light_side, 3),
        "light_height": round(sitting.light_height, 3),
        "yaw": round(sitting.yaw - sitting.camera_yaw, 3),
        "pitch": round(sitting.pitch, 3),
        "roll": round(sitting.roll, 3),
        "landmarks": np.round(portrait.points5, 4).tolist(),
        "points68": np.round(portrait.points68, 4).tolist(),
    }


def save(folder: Path, image: np.ndarray, mask: np.ndarray, labels: dict) -> None:
    """Writes the two files of a picture.

    Args:
        image: [h, w, 3], 8 bits.
        mask: classes [h, w], 8 bits.
        labels: the line that `describe` makes.
    """
    picture, classes = Image.fromarray(image), Image.fromarray(mask)
    write_whole(
        folder / f"{labels['id']}_mask.png", lambda new: classes.save(new, "PNG", optimize=True)
    )
    write_whole(
        folder / f"{labels['id']}.jpg",
        lambda new: picture.save(new, "JPEG", quality=JPEG_QUALITY, subsampling=0),
    )


def finished(folder: Path) -> set[str]:
    """Names of the pictures that have both files and a line of labels.

    Lines that were cut off and lines without files are dropped from labels.jsonl: these pictures
    are made again.
    """
    path = folder / LABELS
    if not path.exists():
        return set()
    whole: dict[str, str] = {}
    text = path.read_text(encoding="utf-8")
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
        write_whole(path, lambda new: new.write_bytes(cleaned.encode()))
    return set(complete)


def append_labels(folder: Path, labels: dict) -> None:
    """Adds a line and makes sure that it reaches the disk."""
    with open(folder / LABELS, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(labels) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def sort_labels(folder: Path) -> None:
    """Brings the lines into the order of the pictures."""
    path = folder / LABELS
    lines = path.read_text(encoding="utf-8").splitlines()
    lines.sort(key=lambda line: json.loads(line)["id"])
    text = "".join(line + "\n" for line in lines)
    write_whole(path, lambda new: new.write_bytes(text.encode()))
