"""Random views of a picture, so that a network is not satisfied by noise made for one view.

Crops and perspective as in CLIPDraw (Frans, Soros and Witkowski, "CLIPDraw: Exploring
Text-to-Drawing Synthesis through Language-Image Encoders", NeurIPS 2022).
"""

import torch
from kornia.geometry.transform import get_perspective_transform, warp_perspective
from torch import Tensor

from ..transfers import made_at, numbers
from .preprocessing import Preprocessing
from .regions import cropped, fitted_boxes, only_region_moves, region_boxes, view_aspect

__all__ = ["Crops"]

# How far a corner of the view may lie inside the crop, as a fraction of its side.
PERSPECTIVE = 0.1

# The corners of a view: left top, right top, right bottom, left bottom.
CORNERS = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


class Crops:
    """Views drawn once and then fixed: the same for every image, and for all calls.

    Args:
        count: the number of views, >= 1.
        least: the side of the smallest crop, as a fraction of the whole view, in (0, 1].
        seed: the seed of the random draws.
    """

    def __init__(self, count: int, least: float, seed: int):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(count, 3 + 2 * len(CORNERS), generator=generator)
        self.scales = (least + (1.0 - least) * drawn[:, 0]).tolist()
        self.places = drawn[:, 1:3].tolist()  # 0: at the left or top, 1: at the right or bottom
        self.corners = drawn[:, 3:].view(count, len(CORNERS), 2)  # 0: in place, 1: most inside

    def __call__(
        self, image: Tensor, region: Tensor | None, preprocessing: Preprocessing
    ) -> list[Tensor]:
        """Make a network's inputs ``[B, C, h, w]``, one for each crop, all over the region's box.

        Args:
            image: ``[B, 3, H, W]``.
            region: ``[1 or B, 1, H, W]`` in [0, 1], or None for the whole image.
            preprocessing: that of the network, whose input has a fixed size.
        """
        boxes = region_boxes(region, image)
        whole = fitted_boxes(boxes, image, view_aspect(image, preprocessing))
        # Where the view had to grow, crops may lie beyond the box; where it was cut, all over it.
        first = torch.minimum(boxes[:, :2], whole[:, :2])
        last = torch.maximum(boxes[:, 2:], whole[:, 2:])
        image = only_region_moves(image, region)
        views = []
        for scale, place, corners in zip(self.scales, self.places, self.corners, strict=True):
            side = scale * (whole[:, 2:] - whole[:, :2])  # [N, 2]: width, height
            start = first + numbers(place, boxes) * (last - first - side)
            box = torch.cat((start, start + side), dim=1)
            view = cropped(image, box, preprocessing.input_size, preprocessing.interpolation)
            views.append(preprocessing.normalized(_tilted(view, corners)))
        return views


def _tilted(view: Tensor, inside: Tensor) -> Tensor:
    """``view [B, C, h, w]`` seen in perspective; its corners come from inside, nothing is missing.

    Args:
        inside: ``[4, 2]`` in [0, 1]: how far the corners move in, in units of PERSPECTIVE.
    """
    height, width = view.shape[-2:]
    corners = torch.tensor(CORNERS)
    inwards = 1.0 - 2.0 * corners
    extent = torch.tensor((width - 1.0, height - 1.0))
    source = (corners + PERSPECTIVE * inside * inwards) * extent  # [4, 2]
    matrix = get_perspective_transform(source[None], (corners * extent)[None])  # [1, 3, 3]
    matrix = made_at(matrix, view).expand(view.shape[0], -1, -1)
    return warp_perspective(view, matrix, (height, width), align_corners=True)
