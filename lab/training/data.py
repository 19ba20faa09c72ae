"""The portraits with their labels, split by person, and the ways in which they are varied.

The folder is what ``python -m lab.training.portraits`` writes: ID.jpg, ID_mask.png and one line per
picture in labels.jsonl.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from kornia.filters import gaussian_blur2d
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

__all__ = ["CLASSES", "Portraits", "Variation", "read_portraits", "split_of", "varied"]

# What the parsers tell apart. The masks name glasses (8) and hats (9) as well.
CLASSES = ("background", "skin", "lips", "brows", "eyes", "hair", "clothing", "beard")
MERGED = {8: CLASSES.index("skin"), 9: CLASSES.index("clothing")}

# Guidance shows a network what a sampling expects so far, which is soft and noisy until its last
# steps. So are some of the pictures that a network which guides is trained on: the share of them,
# the largest standard deviations of blur, in pixels, and of noise.
UNFINISHED, SOFTEST, NOISIEST = 0.5, 2.5, 0.08
BLUR_SIZE = 15

# iBUG's 68 points of a mirrored face in their order: right and left change places.
MIRRORED_68 = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
)  # fmt: skip
MIRRORED = {5: (1, 0, 2, 4, 3), 68: MIRRORED_68}


def split_of(identity: int) -> str:
    """Return train (80 %), validation or test, by person: nobody is in two of them."""
    return {8: "validation", 9: "test"}.get(identity % 10, "train")


@dataclass(frozen=True, eq=False)
class Portraits:
    """Pictures of one or several splits in memory.

    Attributes:
        images: ``[N, 3, H, W]`` RGB, 8 bits.
        classes: ``[N, H, W]`` numbers of CLASSES, 8 bits.
        points: ``[N, 5, 2]`` eyes, nose and mouth corners in fractions of the picture.
        points68: ``[N, 68, 2]`` iBUG's points; None if the labels lack them.
        people: ``[N]`` the identity of each, numbered from 0 without gaps.
        labels: the lines of labels.jsonl.
    """

    images: Tensor
    classes: Tensor
    points: Tensor
    points68: Tensor | None
    people: Tensor
    labels: tuple[dict, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def drawn(self, size: int) -> Tensor:
        """``size`` random places of pictures, from torch's own random numbers."""
        return torch.randint(len(self), (size,))

    def pictures(self, places: Tensor | slice = slice(None)) -> Tensor:
        """``[B, 3, H, W]`` in [0, 1]."""
        return self.images[places].float() / 255.0

    def where(self, key: str, value) -> Tensor:
        """``[N]``: whether a label has this value."""
        return torch.tensor([label[key] == value for label in self.labels])


def read_portraits(folder: Path, *splits: str) -> Portraits:
    """The pictures of some splits, in the order of their labels, on the default device.

    Raises:
        ValueError: the folder has no labels, or none of these splits.
    """
    lines = folder / "labels.jsonl"
    if not lines.is_file():
        raise ValueError(
            f"expected a folder with labels.jsonl, as training.portraits writes it, got {folder}"
        )
    # Portraits of the first edition are one of each sitting, and do not say so.
    labels = [
        {"sitting": label.get("picture", 0), "coloring": 0, **label}
        for label in map(json.loads, lines.read_text().splitlines())
    ]
    labels = [label for label in labels if _split(label) in splits]
    if not labels:
        raise ValueError(f"{folder} has no pictures of the split {' or '.join(splits)}")
    _, people = np.unique([label["identity"] for label in labels], return_inverse=True)
    device = torch.get_default_device()
    complete = all("points68" in label for label in labels)
    return Portraits(
        images=_stacked(_pixels(folder / f"{label['id']}.jpg") for label in labels),
        classes=_stacked(_classes(folder / f"{label['id']}_mask.png") for label in labels),
        points=torch.tensor([label["landmarks"] for label in labels]),
        points68=torch.tensor([label["points68"] for label in labels]) if complete else None,
        people=torch.from_numpy(people).to(device),
        labels=tuple(labels),
    )


@dataclass(frozen=True)
class Variation:
    """The largest changes that a picture gets.

    Args:
        mirror: half of the pictures are mirrored.
        scale: factor, as its logarithm.
        shift: largest shift, in sides of the picture.
        roll: largest turn, in radians.
        light: largest change of brightness and contrast, as a share.
        gray: share of the pictures that lose their colors.
        unfinished: share of the pictures that are blurred and noised, as guidance shows them.
    """

    mirror: bool = True
    scale: float = 0.0
    shift: float = 0.0
    roll: float = 0.0
    light: float = 0.0
    gray: float = 0.0
    unfinished: float = 0.0

    def toward(self, evaluator: bool) -> "Variation":
        """The changes for an evaluator, which sees finished pictures, or for a network that guides,
        which sees unfinished ones as well."""
        return self if evaluator else replace(self, unfinished=UNFINISHED)


def varied(
    images: Tensor, how: Variation, points: Tensor | None = None, classes: Tensor | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Pictures, points and classes changed in the same random way.

    Args:
        images: ``[B, 3, H, W]`` in [0, 1].
        points: ``[B, 5 or 68, 2]`` in fractions of the picture.
        classes: ``[B, H, W]``.
    """
    matrix = _placement(len(images), how)  # [B, 2, 3]: from the new picture to the old one
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    images = _unfinished(_lit(images, how), how)
    if points is not None:
        points = _moved(points, matrix)
    if classes is not None:
        labels = F.grid_sample(
            classes[:, None].float(), grid, "nearest", padding_mode="border", align_corners=False
        )
        classes = labels[:, 0].to(classes.dtype)
    return images, points, classes


def _placement(count: int, how: Variation) -> Tensor:
    """Random similarity transforms ``[B, 2, 3]`` in coordinates from -1 to 1."""
    factor = torch.exp(_within(count, how.scale))
    angle = _within(count, how.roll)
    cos, sin = factor * angle.cos(), factor * angle.sin()
    sign = torch.where((torch.rand(count) < 0.5) & how.mirror, -1.0, 1.0)
    shift = 2.0 * _within(count, how.shift), 2.0 * _within(count, how.shift)
    rows = torch.stack((cos * sign, -sin, shift[0], sin * sign, cos, shift[1]), dim=1)
    return rows.unflatten(1, (2, 3))


def _moved(points: Tensor, matrix: Tensor) -> Tensor:
    """Return where points of the old pictures are in the new ones, in the new faces' order."""
    old = points * 2.0 - 1.0 - matrix[:, None, :, 2]
    new = (old @ torch.linalg.inv(matrix[:, :, :2]).transpose(1, 2) + 1.0) / 2.0
    mirrored = torch.linalg.det(matrix[:, :, :2]) < 0.0
    return torch.where(mirrored[:, None, None], new[:, MIRRORED[points.shape[1]]], new)


def _lit(images: Tensor, how: Variation) -> Tensor:
    count = len(images)
    if how.light:
        gain, offset = (1.0 + _within(count, how.light), _within(count, how.light) / 2.0)
        images = (images * gain.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1)).clamp(0.0, 1.0)
    if how.gray:
        lost = (torch.rand(count) < how.gray).view(-1, 1, 1, 1)
        images = torch.where(lost, images.mean(1, keepdim=True), images)
    return images


def _unfinished(images: Tensor, how: Variation) -> Tensor:
    if not how.unfinished:
        return images
    count = len(images)
    sigma = (SOFTEST * torch.rand(count, 1)).clamp_min(1e-2).expand(-1, 2)
    soft = gaussian_blur2d(images, (BLUR_SIZE, BLUR_SIZE), sigma)
    noise = NOISIEST * torch.rand(count, 1, 1, 1) * torch.randn_like(images)
    chosen = (torch.rand(count) < how.unfinished).view(-1, 1, 1, 1)
    return torch.where(chosen, (soft + noise).clamp(0.0, 1.0), images)


def _within(count: int, limit: float) -> Tensor:
    return (torch.rand(count) * 2.0 - 1.0) * limit


def _split(label: dict) -> str:
    return label.get("split") or split_of(label["identity"])


def _stacked(arrays: Iterable[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(list(arrays))).to(torch.get_default_device())


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


def _classes(path: Path) -> np.ndarray:
    with Image.open(path) as mask:
        classes = np.array(mask)
    for number, merged in MERGED.items():
        classes[classes == number] = merged
    return classes
