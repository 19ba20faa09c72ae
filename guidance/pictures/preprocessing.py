"""A network's own preprocessing of pictures, without its rounding, so that it is differentiable."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from ..transfers import numbers

__all__ = ["CHANNELS", "FITS", "INTERPOLATIONS", "Preprocessing"]

CHANNELS = ("rgb", "bgr", "gray")
FITS = ("stretch", "crop", "pad")
INTERPOLATIONS = ("bilinear", "bicubic")

# Luma of the ITU-R BT.601 standard, which OpenCV and PIL use for gray pictures.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Preprocessing:
    """``image [B, 3, H, W]`` RGB in [0, 1] to a network's input ``[B, C, h, w]``.

    ``(channels(resize(image)) - mean) / std``. Nothing is rounded to 8 bits and nothing clipped,
    so that the gradient arrives unbroken; values differ from a library's own by that rounding.

    Args:
        size: height and width of the network's input, None to keep the picture's.
        mean, std: per channel in the network's order, on the [0, 1] scale; one number for all.
        channels: "rgb", "bgr" or "gray" (one channel).
        fit: "stretch" to the size, scale the shorter side and "crop" the center, or scale the
            longer side and "pad" with black.
        interpolation: "bilinear" or "bicubic", antialiased.

    Raises:
        ValueError: an argument is outside its range.
    """

    size: tuple[int, int] | None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: str = "rgb"
    fit: str = "stretch"
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        for name, choices in (
            ("channels", CHANNELS),
            ("fit", FITS),
            ("interpolation", INTERPOLATIONS),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value}")
        count = 1 if self.channels == "gray" else 3
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, count):
                raise ValueError(f"{name} must be 1 or {count} numbers, got {len(values)}")
        if not all(value > 0.0 for value in self.std):
            raise ValueError(f"std must be positive, got {self.std}")

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the network's input.

        Raises:
            ValueError: it is as large as the picture.
        """
        if self.size is None:
            raise ValueError("expected a network whose input has a fixed size")
        return self.size

    def __call__(self, image: Tensor) -> Tensor:
        return self.normalized(self.resized(image))

    def resized(self, image: Tensor) -> Tensor:
        """Resize ``[B, 3, H, W]`` to ``[B, 3, h, w]``, antialiased."""
        if self.size is None or tuple(image.shape[-2:]) == self.size:
            return image
        height, width = self.size
        if self.fit == "crop":
            scaled = self._covering(*image.shape[-2:])
            image = self._interpolated(image, scaled)
            top, left = (
                round((side - wanted) / 2) for side, wanted in zip(scaled, self.size, strict=True)
            )
            return image[..., top : top + height, left : left + width]
        if self.fit == "pad":
            return self._padded(image)
        return self._interpolated(image, [height, width])

    def _covering(self, height: int, width: int) -> list[int]:
        """The size of a picture scaled until its shorter side fits, to the pixel as torchvision's.

        A square is filled by the scaled picture's shorter side, its longer one rounded down; any
        other size by whichever side needs it, both rounded to the nearest.
        """
        wanted_height, wanted_width = self.input_size
        if wanted_height == wanted_width:
            shorter = min(height, width)
            return [wanted_height * side // shorter for side in (height, width)]
        ratio = min(height / wanted_height, width / wanted_width)
        return [round(height / ratio), round(width / ratio)]

    def _padded(self, image: Tensor) -> Tensor:
        """The picture scaled until it fits in, in the middle; black fills what it leaves."""
        height, width = self.input_size
        ratio = min(height / image.shape[-2], width / image.shape[-1])
        scaled = [round(side * ratio) for side in image.shape[-2:]]
        down, right = height - scaled[0], width - scaled[1]
        border = (right // 2, right - right // 2, down // 2, down - down // 2)
        return F.pad(self._interpolated(image, scaled), border)

    def normalized(self, image: Tensor) -> Tensor:
        """Bring ``[B, 3, h, w]`` RGB in [0, 1] to the network's channels and scale."""
        if self.channels == "gray":
            image = (image * numbers(LUMA, image).view(1, 3, 1, 1)).sum(1, keepdim=True)
        elif self.channels == "bgr":
            image = image.flip(1)
        mean, std = (numbers(v, image).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (image - mean) / std

    def _interpolated(self, image: Tensor, size: list[int]) -> Tensor:
        return F.interpolate(image, size=size, mode=self.interpolation, antialias=True)
