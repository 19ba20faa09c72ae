"""Brightness map: seen through a blur, the picture is dark and bright where a map is.

For codes and illusions: a QR code, a lettering or a face that only appears from afar. A picture
that is already darker, or brighter, than the map's black and white ask for is left alone. The
asymmetric squares are those of expectiles (Newey and Powell, "Asymmetric Least Squares Estimation
and Testing", Econometrica 1987).
"""

import torch
from torch import Tensor

from ..pictures.color_spaces import luma
from ..pictures.references import Reference
from ..pictures.smoothing import through_blur, weighted_mean

__all__ = ["BrightnessMap"]


class BrightnessMap:
    """``E = sum w a (b - t)^2 / sum w``, ``w`` the region, and of it what counts of the map.

    ``b`` is the blurred luma of the picture and ``m`` that of the map; ``t = dark + m (bright -
    dark)`` is what the map asks for. ``a`` is 1 - m where the picture is too bright and m where it
    is too dark: black does not mind what is darker still, nor white what is brighter, gray minds
    both by half. Unit: squared difference of luma, at most 1.

    Args:
        reference: the map, ``[R, 3, h, w]`` RGB in [0, 1]; R is 1 or the batch size of the images.
            Maps of another size are scaled to fill the image, what overhangs cut evenly.
        blur: standard deviation of the blur as a fraction of the image's height, >= 0;
            0 compares pixel by pixel.
        dark, bright: the luma that the map's black and white ask for, 0 <= dark < bright <= 1.
        mask: ``[R, 1, h, w]`` in [0, 1], how much of the map's pixels counts, or None.

    Raises:
        ValueError: ``reference`` has another shape, or a number is outside its range.
    """

    describes_places = True  # what it asks for lies at places of the whole picture
    goal = 0.0  # of a picture that is all that it asks for

    def __init__(
        self,
        reference: Tensor,
        blur: float = 0.01,
        dark: float = 0.25,
        bright: float = 0.75,
        mask: Tensor | None = None,
    ):
        if not blur >= 0.0:
            raise ValueError(f"blur must be >= 0, got {blur}")
        if not 0.0 <= dark < bright <= 1.0:
            raise ValueError(
                f"expected 0 <= dark < bright <= 1, got dark {dark:g} and bright {bright:g}"
            )
        self.reference = Reference(reference, mask)
        self.blur = blur
        self.dark, self.bright = dark, bright

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        weights = self.reference.weights(image, region)  # [1 or B, 1, H, W]
        sigma = self.blur * image.shape[-2]
        with torch.no_grad():
            wanted, _ = through_blur(luma(self.reference.at(image)), weights, sigma)
        brightness, weights = through_blur(luma(image), weights, sigma)
        excess = brightness - (self.dark + wanted * (self.bright - self.dark))
        minded = torch.where(excess > 0.0, 1.0 - wanted, wanted)
        return weighted_mean(minded * excess.square(), weights)
