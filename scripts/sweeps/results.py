"""The end of a sweep: a table of all pictures, and labeled sheets of them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from headless import load_pack
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from .store import SweepStore
from .variations import Variant

load_pack()
from zmagic.guidance.contact_sheet import contact_sheet  # noqa: E402

__all__ = ["write_sheets", "write_table"]

COLUMNS = 6  # side by side
ROWS = 24  # below each other on one sheet, be it of one band of columns or of several


def write_table(store: SweepStore, variants: Sequence[Variant], file: Path) -> None:
    """One line for each picture that there is: what was chosen, who made it, its energies."""
    rows = [(store.row(variant), variant) for variant in variants if variant in store]
    chosen = dict.fromkeys(name for _, variant in rows for name in variant.chosen)
    conditions = dict.fromkeys(name for row, _ in rows for name in row["energies"])
    header = ["file", *chosen, *(f"energy {name}" for name in conditions)]
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow([*header, "seconds", "host", "warnings", "prompt"])
        for row, variant in rows:
            values = [variant.chosen.get(name, "") for name in chosen]
            rest = [row["seconds"], row["host"], " | ".join(row["warnings"]), row["prompt"]]
            for k, name in enumerate(row["files"]):
                energies = [_energy(row, condition, k) for condition in conditions]
                table.writerow([name, *values, *energies, *rest])


def write_sheets(store: SweepStore, variants: Sequence[Variant], folder: Path) -> list[Path]:
    """Sheets with a column for each combination of values, and its seeds below each other.

    Those of an earlier call are removed.
    """
    for old in folder.glob("sheet*.png"):
        old.unlink()
    columns = _columns(store, variants)
    bands = [columns[first : first + COLUMNS] for first in range(0, len(columns), COLUMNS)]
    sheets: list[list] = []
    rows = ROWS
    for band in bands:
        height = max(len(files) for _, files in band)
        if rows + height > ROWS:
            sheets.append([])
            rows = 0
        sheets[-1].append(band)
        rows += height
    return [_write(sheet, folder, number) for number, sheet in enumerate(sheets, 1)]


def _energy(row: dict, condition: str, k: int) -> object:
    """The energy of file k, if the row has one for each of its files."""
    values = row["energies"].get(condition, ())
    return values[k] if len(values) == len(row["files"]) else ""


def _columns(store: SweepStore, variants: Sequence[Variant]) -> list[tuple[str, list[Path]]]:
    """Labels and the files of their pictures; those of another size have a column of their own."""
    found: dict[tuple, list[Path]] = {}
    for variant in variants:
        for name in store.row(variant)["files"] if variant in store else ():
            file = store.folder / name
            with Image.open(file) as picture:
                found.setdefault((variant.label, picture.size), []).append(file)
    return [
        (f"{label or 'as the graph is'}{f', from {first + 1}' * bool(first)}", files[first:][:ROWS])
        for (label, _), files in found.items()
        for first in range(0, len(files), ROWS)
    ]


def _write(bands: Sequence[Sequence[tuple[str, list[Path]]]], folder: Path, number: int) -> Path:
    drawn = [contact_sheet([(label, _pictures(files)) for label, files in band]) for band in bands]
    width = max(band.shape[2] for band in drawn)
    wide = [torch.nn.functional.pad(b, (0, 0, 0, width - b.shape[2]), value=1.0) for b in drawn]
    pixels = torch.cat(wide, dim=1)[0].mul(255.0).round().to(torch.uint8).numpy()
    path = folder / f"sheet-{number}.png"
    Image.fromarray(pixels).save(path)
    return path


def _pictures(files: Sequence[Path]) -> Tensor:
    """``[B, H, W, 3]`` in [0, 1]."""
    opened = [pil_to_tensor(Image.open(file).convert("RGB")) for file in files]
    return torch.stack(opened).movedim(1, -1).float().div(255.0)
