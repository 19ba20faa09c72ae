"""Pictures that are kept to be looked at: figures alone do not show a broken face."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from zmagic.guidance.contact_sheet import contact_sheet

from .condition_sets import ConditionSet
from .results import Run

__all__ = ["Pictures"]

# Condition sets whose pictures are kept, of the tests alone.
SHOWN = 8
STAGE = "test"


class Pictures:
    """The pictures of the first condition sets, by all methods.

    Args:
        folder: folder in which they are kept.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def keep(self, runs: Iterable[Run], pictures: Tensor) -> None:
        """Write those of ``pictures [B, 3, H, W]`` in [0, 1] that will be shown."""
        for run, picture in zip(runs, pictures, strict=True):
            if run.stage != STAGE or run.number >= SHOWN:
                continue
            file = self._file(run.task, run.method, run.strength, run.number)
            file.parent.mkdir(parents=True, exist_ok=True)
            to_pil_image(picture.clamp(0.0, 1.0)).save(file)

    def sheet(
        self, task: str, strengths: Mapping[str, float], sets: Sequence[ConditionSet], path: Path
    ) -> None:
        """A row for each condition set: person and layout, then what each method made of them.

        Args:
            strengths: method to the strength that was tested; methods without pictures are left
                out.
            path: file of the sheet; none is written without pictures.
        """
        sets = sets[:SHOWN]
        columns = {
            "person": torch.cat([wanted.person.picture for wanted in sets]),
            "layout": torch.cat([wanted.layout.picture for wanted in sets]),
        }
        for method, strength in strengths.items():
            files = [self._file(task, method, strength, wanted.number) for wanted in sets]
            if all(file.is_file() for file in files):
                columns[method] = torch.stack([_read(file) for file in files])
        if len(columns) > 2:
            images = [(title, pictures.movedim(1, -1)) for title, pictures in columns.items()]
            path.parent.mkdir(parents=True, exist_ok=True)
            to_pil_image(contact_sheet(images)[0].movedim(-1, 0).clamp(0.0, 1.0)).save(path)

    def _file(self, task: str, method: str, strength: float, number: int) -> Path:
        return self.folder / task / f"{method} {strength:g}" / f"{number:03d}.png"


def _read(file: Path) -> Tensor:
    with Image.open(file) as picture:
        return pil_to_tensor(picture.convert("RGB")).float() / 255.0
