"""Where faces are in pictures, and the crops that face networks look at.

Recognizers see a face aligned by five points, as insightface's library does it for ArcFace (Deng et
al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019): a similarity
transform moves the points to fixed places. Landmark networks see the box around the face. Both
crops are differentiable in the picture as often as wanted; the location itself is a constant.

Coordinates are fractions of the picture's width and height, (0, 0) its upper left and (1, 1) its
lower right corner: they do not depend on its resolution. Pixel ``i`` of a row of ``n`` has its
center at ``(i + 0.5) / n``, so that a point which a library gives in pixels, whole numbers at pixel
centers, is at ``(x + 0.5) / n``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..pictures.warping import warped
from ..transfers import made_at

__all__ = [
    "ARCFACE_POINTS",
    "Faces",
    "aligned_crops",
    "aligned_side",
    "box_crops",
    "similarity",
]

# Left eye, right eye, nose tip, left and right corner of the mouth, as seen in the picture, in
# pixels of the aligned crop: the template published with insightface (utils/face_align.py).
ARCFACE_POINTS = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
ARCFACE_SIZE = 112
# The same points in a mirror: the eye on the right is then on the left.
MIRRORED_POINTS = [1, 0, 2, 4, 3]

# The box that detectors draw around those points, in the same pixels: x0, y0, x1, y1. Median of
# the boxes of MTCNN and UltraFace on 80 boxes of 40 photographed and synthetic faces; the edges
# scatter by 4 to 8 pixels.
ARCFACE_BOX = (17.0, 10.5, 95.0, 114.5)

# Side of the crop of insightface's landmark models (model_zoo/landmark.py) in longer sides of the
# face's box.
LANDMARK_MARGIN = 1.5


@dataclass(frozen=True, eq=False)
class Faces:
    """One face in each of B pictures; constants, kept in float64 on the CPU.

    Args:
        points: five points ``[B, 5, 2]``, (x, y) of left eye, right eye, nose tip, left and right
            corner of the mouth, as seen in the picture.
        boxes: one box ``[B, 4]`` each, left, top, right and bottom edge of the face, from the
            forehead to the chin.

    Raises:
        ValueError: the shapes are others, or a number is not finite.
    """

    points: Tensor
    boxes: Tensor

    def __post_init__(self) -> None:
        for name, shape in (("points", (5, 2)), ("boxes", (4,))):
            value = _constant(getattr(self, name))
            if value.shape[1:] != shape or value.shape[:1] != self.points.shape[:1]:
                raise ValueError(
                    f"{name} of faces must be [B, {', '.join(map(str, shape))}], "
                    f"got {list(value.shape)} for {len(self.points)} faces"
                )
            if not value.isfinite().all():
                raise ValueError(f"{name} of faces must be finite numbers")
            object.__setattr__(self, name, value)

    @staticmethod
    def from_points(points: Tensor, aspect: float) -> "Faces":
        """Faces of known points, in the box that detectors draw around such points.

        Args:
            points: ``[B, 5, 2]`` in fractions.
            aspect: width of the pictures divided by their height.
        """
        points = _constant(points)
        units = points.new_tensor((aspect, 1.0))  # fractions to units of the height
        matrix = similarity(_layout_points().expand(len(points), -1, -1), points * units)
        x0, y0, x1, y1 = _layout_box()
        center = points.new_tensor(((x0 + x1) / 2.0, (y0 + y1) / 2.0))
        middle = matrix[:, :, :2] @ center + matrix[:, :, 2]  # [B, 2]
        scale = matrix[:, :, 0].norm(dim=1, keepdim=True)  # [B, 1]
        half = scale * points.new_tensor(((x1 - x0) / 2.0, (y1 - y0) / 2.0))
        return Faces(points, torch.cat(((middle - half) / units, (middle + half) / units), dim=1))

    @staticmethod
    def from_boxes(boxes: Tensor) -> "Faces":
        """Faces of known boxes ``[B, 4]``, the points where they are in an average upright face."""
        boxes = _constant(boxes)
        outer = boxes.new_tensor(_layout_box())
        inside = (_layout_points() - outer[:2]) / (outer[2:] - outer[:2])  # [5, 2]
        points = boxes[:, None, :2] + inside * (boxes[:, None, 2:] - boxes[:, None, :2])
        return Faces(points, boxes)

    @staticmethod
    def filling(areas: Tensor, aspect: float) -> "Faces":
        """Faces of which nothing is known: the center square of each area is the aligned crop.

        Args:
            areas: ``[B, 4]``, left, top, right and bottom edge in fractions.
            aspect: width of the pictures divided by their height.
        """
        areas = _constant(areas)
        units = areas.new_tensor((aspect, 1.0))
        middle = (areas[:, :2] + areas[:, 2:]) / 2.0
        side = ((areas[:, 2:] - areas[:, :2]) * units).amin(1)  # the shorter one
        step = side[:, None] / units  # [B, 2]: the square's sides in fractions
        points = middle[:, None] + (_layout_points() - 0.5) * step[:, None]
        return Faces.from_points(points, aspect)

    @staticmethod
    def whole(count: int, aspect: float) -> "Faces":
        """``count`` faces of which nothing is known: the picture's center square is the crop."""
        return Faces.filling(torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(count, -1), aspect)

    @staticmethod
    def stacked(faces: Sequence["Faces"]) -> "Faces":
        """Join several faces to one batch."""
        return Faces(
            torch.cat([each.points for each in faces]), torch.cat([each.boxes for each in faces])
        )

    def nudged(self, x: float, y: float) -> "Faces":
        """The same faces, as if they lay elsewhere.

        Args:
            x, y: how far to the right and down, in widths and heights of each face's box.
        """
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        step = sides * sides.new_tensor((x, y))
        return Faces(self.points + step[:, None], self.boxes + step.repeat(1, 2))

    def mirrored(self) -> "Faces":
        """The faces of the pictures with left and right exchanged."""
        points = self.points[:, MIRRORED_POINTS].clone()
        points[..., 0] = 1.0 - points[..., 0]
        left, top, right, bottom = self.boxes.unbind(1)
        return Faces(points, torch.stack((1.0 - right, top, 1.0 - left, bottom), dim=1))

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> "Faces":
        """Return face ``index`` as a batch of one."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"face {index} of {len(self)}")
        kept = slice(index % len(self), index % len(self) + 1)
        return Faces(self.points[kept], self.boxes[kept])

    def expanded(self, count: int) -> "Faces":
        """Return one face for each of ``count`` pictures; a single one is repeated.

        Raises:
            ValueError: there are neither one nor ``count`` faces.
        """
        if len(self) == count:
            return self
        if len(self) != 1:
            raise ValueError(f"{len(self)} faces do not fit a batch of {count} pictures")
        return Faces(self.points.expand(count, -1, -1), self.boxes.expand(count, -1))


def similarity(points: Tensor, template: Tensor) -> Tensor:
    """The rotation, uniform scale and shift that brings points nearest to a template.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
    TPAMI 1991. In the plane a rotation with scale is a complex number, and the optimum is
    ``sum conj(p) q / sum |p|^2`` over the centered points p and q. It never mirrors.

    Args:
        points, template: ``[B, N, 2]`` (or broadcast to it), N >= 2 points that do not coincide.

    Returns:
        ``[B, 2, 3]``: ``template ~ matrix[:, :, :2] @ point + matrix[:, :, 2]``.
    """
    points, template = torch.broadcast_tensors(points, template)
    origin, target = points.mean(-2), template.mean(-2)  # [B, 2]
    p, q = points - origin[..., None, :], template - target[..., None, :]
    spread = p.square().sum((-2, -1)).clamp_min(torch.finfo(p.dtype).tiny)
    real = (p * q).sum((-2, -1)) / spread
    imaginary = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(-1) / spread
    rows = torch.stack((real, -imaginary, imaginary, real), dim=-1)
    linear = rows.unflatten(-1, (2, 2))  # [B, 2, 2]
    shift = target - (linear @ origin[..., None])[..., 0]
    return torch.cat((linear, shift[..., None]), dim=-1)


def aligned_side(points: Tensor, aspect: float) -> float:
    """Side of the largest aligned crop of points ``[B, 5, 2]``, in heights of the picture.

    It is infinite for points that coincide, and large for points in disorder, which fit the
    template only at a scale near 0.
    """
    points = _constant(points)
    points = points * points.new_tensor((aspect, 1.0))
    scale = similarity(points, _layout_points())[:, :, 0].norm(dim=1)  # crops per height
    return float((1.0 / scale).max())


def aligned_crops(image: Tensor, faces: Faces, size: int = ARCFACE_SIZE) -> Tensor:
    """Crop the faces, aligned as insightface's ``norm_crop`` does it, black beyond the picture.

    Transform and sampling are the library's, without its rounding to 8 bits. A face that is much
    larger than the crop is antialiased, so that every pixel of it receives a gradient; the library
    does not do that. See ``warped``.

    Args:
        image: ``[B, 3, H, W]``.
        faces: B faces, or one for all.
        size: side of the crop in pixels.

    Returns:
        ``[B, 3, size, size]``.
    """
    points = _in_pixels(faces.expanded(len(image)).points, image)
    template = points.new_tensor(ARCFACE_POINTS) * (size / ARCFACE_SIZE)
    return warped(image, similarity(points, template), size)


def box_crops(
    image: Tensor, faces: Faces, size: int, margin: float | None = None, square: bool = True
) -> tuple[Tensor, Tensor]:
    """Crop the faces' boxes, and return the map from the crops back to the picture.

    Args:
        image: ``[B, 3, H, W]``.
        faces: B faces, or one for all.
        size: side of the crop in pixels.
        margin: side of the crop in sides of the box; by default LANDMARK_MARGIN for square crops
            and 1 for others.
        square: the crop of insightface's landmark models, a square around the box's center, its
            side ``margin`` times the box's longer side; otherwise the box stretched to the crop.

    Returns:
        ``[B, 3, size, size]``, black beyond the picture, and ``[B, 2, 3]``: a point (x, y) in
        [0, 1] of the crop is at ``matrix[:, :, :2] @ (x, y) + matrix[:, :, 2]`` of the picture, in
        fractions. Pixel ``i`` of a crop is at ``i / size`` in a square one, as the library counts,
        and at ``(i + 0.5) / size`` in a stretched one.
    """
    boxes = faces.expanded(len(image)).boxes
    frame = boxes.new_tensor((image.shape[-1], image.shape[-2]))
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2.0
    sides = ((boxes[:, 2:] - boxes[:, :2]) * frame).clamp_min(1.0)  # [B, 2] in pixels
    if square:
        sides = sides.amax(1, keepdim=True).expand(-1, 2)
    sides = sides * (margin or (LANDMARK_MARGIN if square else 1.0))
    center = size / 2.0 if square else (size - 1.0) / 2.0
    scale = torch.diag_embed(size / sides)  # [B, 2, 2]
    origin = _in_pixels(middle, image)
    shift = center - (scale @ origin[..., None])  # [B, 2, 1]
    crops = warped(image, torch.cat((scale, shift), dim=2), size)
    step = sides / frame
    back = torch.cat((torch.diag_embed(step), (middle - step / 2.0)[..., None]), dim=2)
    return crops, made_at(back, image)


def _constant(tensor: Tensor) -> Tensor:
    """A copy in float64 on the CPU that autograd may save, whatever mode the caller runs in."""
    with torch.inference_mode(False), torch.no_grad():
        return tensor.detach().cpu().to(torch.float64, copy=True)


def _layout_points() -> Tensor:
    """The template's points in fractions of the aligned crop, ``[5, 2]``."""
    points = torch.tensor(ARCFACE_POINTS, dtype=torch.float64, device="cpu")
    return (points + 0.5) / ARCFACE_SIZE


def _layout_box() -> tuple[float, ...]:
    """The box around them in fractions of the aligned crop."""
    return tuple((edge + 0.5) / ARCFACE_SIZE for edge in ARCFACE_BOX)


def _in_pixels(points: Tensor, image: Tensor) -> Tensor:
    """Fractions ``[..., 2]`` to pixels of ``image``, whole numbers at the pixels' centers."""
    return points * points.new_tensor((image.shape[-1], image.shape[-2])) - 0.5
