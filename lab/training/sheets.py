"""Contact sheets: many small pictures in one file."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

__all__ = ["save_sheet"]


def save_sheet(path: Path, pictures: Tensor, columns: int, enlarged: int = 1) -> None:
    """Write ``pictures [N, 3, H, W]`` in [0, 1] row by row; a last row that is not full is cut.

    Args:
        enlarged: side of the square that shows a pixel.
    """
    rows = len(pictures) // columns
    grid = pictures[: rows * columns].unflatten(0, (rows, columns))  # [R, C, 3, H, W]
    sheet = grid.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)  # [R * H, C * W, 3]
    sheet = sheet.repeat_interleave(enlarged, 0).repeat_interleave(enlarged, 1)
    pixels = (sheet.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    Image.fromarray(pixels.cpu().numpy()).save(path)
