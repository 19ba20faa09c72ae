"""Reference image: the picture should look like the reference seen through a blur.

A low-level likeness of colors and large shapes, in the spirit of ILVR (Choi et al., "ILVR:
Conditioning Method for Denoising Diffusion Probabilistic Models", ICCV 2021): the blur decides how
much detail is prescribed.
"""

from torch import Tensor

from ..pictures.references import Reference
from ..pictures.smoothing import through_blur, weighted_mean

__all__ = ["ReferenceImage"]


class ReferenceImage:
    """``E = sum w |blur(image - reference)|^2 / (3 sum w)``, ``w`` the region, and of it
    what counts of the reference.

    The blur is a normalized convolution over the region, in sRGB values. Unit: squared sRGB
    difference, 0 for equal pictures, 1 for black against white.

    Args:
        reference: ``[R, 3, h, w]`` RGB in [0, 1]; R is 1 or the batch size of the images.
            Pictures of another size are scaled to fill the image, what overhangs cut evenly.
        blur: standard deviation of the blur as a fraction of the image's height, >= 0;
            0 compares pixel by pixel.
        mask: ``[R, 1, h, w]`` in [0, 1], how much of the reference's pixels counts, or None.

    Raises:
        ValueError: ``reference`` has another shape, or ``blur`` is negative.
    """

    describes_places = True  # what it asks for lies at places of the whole picture
    goal = 0.0  # of a picture that is all that it asks for

    def __init__(self, reference: Tensor, blur: float = 0.02, mask: Tensor | None = None):
        if not blur >= 0.0:
            raise ValueError(f"blur must be >= 0, got {blur}")
        self.reference = Reference(reference, mask)
        self.blur = blur

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        residual = image - self.reference.at(image)  # [B, 3, H, W]
        weights = self.reference.weights(image, region)  # [1 or B, 1, H, W]
        residual, weights = through_blur(residual, weights, self.blur * image.shape[-2])
        return weighted_mean(residual.square().mean(1, keepdim=True), weights)
