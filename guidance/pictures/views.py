"""Views of a picture as it might have come out as well: noisy, blurred, shifted or mirrored.

What a network is pleased by in all of them is in the picture; a pattern of pixels made for the
network is not. Views with noise are the Monte Carlo smoothing of LGD (Song et al., "Loss-Guided
Diffusion Models for Plug-and-Play Controllable Generation", ICML 2023) on the decoded picture.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..transfers import Constant, numbers

__all__ = ["NoisePattern", "View", "ViewOptions", "drawn_views"]

# A Gaussian is cut at this many standard deviations: 0.3 % of its mass is left out.
CUT = 3.0
# A blur of less, in pixels, changes nothing.
LEAST_BLUR = 0.1
MOST_VIEWS = 64
# Numbers drawn for each view: two of its shift, two, one and one of its noise.
DRAWN = 6


@dataclass(frozen=True)
class ViewOptions:
    """How views differ from the picture.

    Args:
        count: the number of views, 1 to 64.
        noise: the standard deviation of their noise, >= 0; the picture is in [0, 1].
        blur: the standard deviation of their blur in pixels of the picture, >= 0.
        shift: how far they are shifted at most, as a share of the side, in [0, 0.5].
        flip: whether half of them are mirrored.

    Raises:
        ValueError: a value is outside its range.
    """

    count: int = 1
    noise: float = 0.0
    blur: float = 0.0
    shift: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        for name, high in (("count", MOST_VIEWS), ("noise", 1.0), ("blur", 100.0), ("shift", 0.5)):
            low, value = float(name == "count"), getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value}")

    @property
    def changes(self) -> bool:
        """Whether a view differs from the picture."""
        return self.differ or self.blur >= LEAST_BLUR

    @property
    def differ(self) -> bool:
        """Whether views differ from each other."""
        return self.noise > 0.0 or self.shift > 0.0 or self.flip


class NoisePattern:
    """Noise that is drawn once for each size of picture, and copied to its device once.

    Views take other parts of it: to draw noise anew for each of them would make a device wait.
    """

    def __init__(self) -> None:
        self._drawn = lru_cache(1)(_drawn)

    def like(self, image: Tensor) -> Tensor:
        """Standard normal noise ``[3, H, W]`` for ``image [B, 3, H, W]``."""
        return self._drawn(*image.shape[1:]).like(image)


def _drawn(*shape: int) -> Constant:
    return Constant(torch.randn(shape, generator=torch.Generator().manual_seed(0)))


@dataclass(frozen=True)
class View:
    """One view, the same of every picture of a batch and at every call.

    Args:
        options: how views differ.
        shift: of the picture, right and down, as shares of its sides.
        mirrored: whether left and right are exchanged, after the shift.
        roll: which part of the noise it has: two shares of the sides, and a channel.
        sign: that of its noise.
    """

    options: ViewOptions
    shift: tuple[float, float]
    mirrored: bool
    roll: tuple[float, float, int]
    sign: float

    def moved(self, values: Tensor, *, shifted: bool = True, beyond: str = "replicate") -> Tensor:
        """``values [B, C, H, W]``, shifted by whole pixels and mirrored.

        Args:
            shifted: whether to shift at all.
            beyond: what comes in from beyond the border, as ``torch.nn.functional.pad`` names it.
        """
        height, width = values.shape[-2:]
        x, y = (round(s * side) for s, side in zip(self.shift, (width, height), strict=True))
        if shifted and (x or y):
            padded = F.pad(values, (max(x, 0), max(-x, 0), max(y, 0), max(-y, 0)), mode=beyond)
            top, left = max(-y, 0), max(-x, 0)
            values = padded[..., top : top + height, left : left + width]
        return values.flip(-1) if self.mirrored else values

    def degraded(self, image: Tensor, pattern: NoisePattern) -> Tensor:
        """``image [B, 3, H, W]`` blurred, with noise."""
        if self.options.blur >= LEAST_BLUR:
            image = _blurred(image, self.options.blur)
        if self.options.noise > 0.0:
            y, x, channel = self.roll
            rows, columns = int(y * image.shape[-2]), int(x * image.shape[-1])
            noise = pattern.like(image).roll((channel, rows, columns), (0, 1, 2))
            image = image + self.sign * self.options.noise * noise
        return image


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian average of ``image [B, C, H, W]``; beyond the border its outermost pixels go on.

    Kornia's makes a device wait, at every call, for the width of its kernel.
    """
    reach = math.ceil(CUT * sigma)
    weights = [math.exp(-0.5 * (x / sigma) ** 2) for x in range(-reach, reach + 1)]
    kernel = numbers((weight / sum(weights) for weight in weights), image)
    flat = F.pad(image, (reach,) * 4, mode="replicate").flatten(0, 1)[:, None]
    blurred = F.conv2d(F.conv2d(flat, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return blurred.view_as(image)


def drawn_views(options: ViewOptions, seed: int) -> list[View]:
    """The views of a seed."""
    generator = torch.Generator().manual_seed(seed)
    mirrored_first = int(torch.randint(2, (1,), generator=generator))
    drawn = torch.rand(options.count, DRAWN, generator=generator).tolist()
    return [
        View(
            options,
            ((2.0 * x - 1.0) * options.shift, (2.0 * y - 1.0) * options.shift),
            options.flip and (number + mirrored_first) % 2 == 0,
            (rows, columns, int(3 * channel)),
            1.0 if sign < 0.5 else -1.0,
        )
        for number, (x, y, rows, columns, channel, sign) in enumerate(drawn)
    ]
