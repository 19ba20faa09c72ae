"""Checks and conversions of what arrives at IMAGE and MASK sockets, the same for all nodes.

ComfyUI hands pictures on in the precision that it was started with, and packs add channels, sizes
and scales of their own. What these functions return is float32 on the CPU, RGB in [0, 1].
"""

import torch
from comfy_api.latest import io
from torch import Tensor
from torch.nn import functional as F

from ..guidance.wording import quoted

__all__ = [
    "SEVERAL_TOGETHER",
    "grayed",
    "masks",
    "pictures",
    "pictures_and_mask",
    "reference_mask_input",
    "refuse_mask_alone",
]

# Decoders and resampling overshoot [0, 1] a little; what goes further has another scale.
LOWEST, HIGHEST = -0.5, 1.5

# Of references whose batch is no row of one for each image.
SEVERAL_TOGETHER = "several pictures in a batch count together, for every image."

# What a network sees where nothing of a reference counts: in the middle of every scale of colors.
NEUTRAL = 0.5


def reference_mask_input(of: str) -> io.Mask.Input:
    """Make the optional input that says which part of a reference counts.

    Args:
        of: the name of the picture's input.
    """
    return io.Mask.Input(
        "reference_mask",
        optional=True,
        tooltip=(
            f"Which part of '{of}' counts: white does, black does not. What you "
            "paint in Load Image's mask editor is white, and so is what is "
            "transparent: for that put Invert Mask in between. Not connected: all "
            "of it, or what the picture's own alpha channel shows."
        ),
    )


def refuse_mask_alone(mask: Tensor | None, of: str) -> None:
    """Refuse a mask of a reference that is not connected: it would have no effect.

    Args:
        mask: the MASK at ``reference_mask``, or None.
        of: the name of the reference's input.

    Raises:
        ValueError: there is a mask.
    """
    if mask is not None:
        raise ValueError(
            f"disconnect 'reference_mask', or connect '{of}'.\nThe mask says what counts "
            "of that picture, which is not connected"
        )


def pictures(image: Tensor, name: str = "reference", mask: Tensor | None = None) -> Tensor:
    """The IMAGE ``[R, h, w, C]`` at input ``name`` as RGB in [0, 1], ``[R, 3, h, w]`` in float32.

    What is transparent in it, or left out by the mask, is gray: for networks, which see a whole
    picture.

    Args:
        image: an IMAGE of 1 (gray), 3 (RGB) or 4 (RGB and alpha) channels.
        mask: the MASK at ``reference_mask``, for one or all pictures and of any size, or None.

    Raises:
        ValueError: it is no such picture, is empty, has another scale, or is not finite; the mask
            is none, fits another number of pictures, or leaves nothing of one of them.
    """
    return grayed(*pictures_and_mask(image, mask, name))


def grayed(pictures: Tensor, counts: Tensor | None) -> Tensor:
    """What ``pictures_and_mask`` gives as ``pictures`` does: gray where nothing counts."""
    return pictures if counts is None else NEUTRAL + counts * (pictures - NEUTRAL)


def pictures_and_mask(
    image: Tensor, mask: Tensor | None, name: str = "reference"
) -> tuple[Tensor, Tensor | None]:
    """Pictures ``[R, 3, h, w]`` with all their colors, and how much of each pixel counts.

    The arguments are those of ``pictures``.

    Returns:
        the pictures and ``[R, 1, h, w]`` in [0, 1], or None where everything counts.

    Raises:
        ValueError: the picture or the mask is refused for a reason that ``pictures`` has.
    """
    values = _image(image, name)
    counts = values[:, 3:4] if values.shape[1] == 4 else None
    values = values.expand(-1, 3, -1, -1) if values.shape[1] == 1 else values[:, :3]
    if mask is not None:
        fitted = _fitted(masks(mask, "reference_mask"), values, name)
        counts = fitted if counts is None else counts * fitted
    if counts is None or bool((counts == 1.0).all()):
        return values.contiguous(), None
    _check_visible(counts, name, masked=mask is not None)
    return values.contiguous(), counts.contiguous()


def masks(mask: Tensor, name: str = "region") -> Tensor:
    """The MASK ``[h, w]`` or ``[B, h, w]`` at input ``name``: ``[B, h, w]`` in [0, 1], float32.

    Raises:
        ValueError: it is no such mask, is empty, has another scale, or is not finite.
    """
    expected = "a mask [batch, height, width]"
    values = _tensor(mask, name, expected)
    if values.ndim not in (2, 3):
        raise ValueError(f"'{name}' must be {expected}, got {list(values.shape)}")
    values = values if values.ndim == 3 else values[None]
    return _checked(values, name, "mask")


def _image(image: Tensor, name: str) -> Tensor:
    """Check an IMAGE and return it as ``[R, C, h, w]``, with as many channels C as it came with."""
    expected = "an RGB image [batch, height, width, 3]"
    values = _tensor(image, name, expected)
    if values.ndim != 4 or values.shape[-1] not in (1, 3, 4):
        raise ValueError(f"'{name}' must be {expected}, got {list(values.shape)}")
    if not values.is_floating_point():
        raise ValueError(
            f"'{name}' holds whole numbers ({_kind(values)}), expected colors from 0 to "
            "1 as fractions, as ComfyUI's own nodes make them.\nDivide them by 255"
        )
    return _checked(values.movedim(-1, 1), name, "picture")


def _tensor(value: Tensor, name: str, expected: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"'{name}' must be {expected}, got {quoted(value)}")
    if value.is_complex():
        raise ValueError(f"'{name}' must be {expected}, got complex numbers")
    return value


def _checked(values: Tensor, name: str, what: str) -> Tensor:
    """``values`` in float32 on the CPU, clamped to [0, 1]; raises ValueError for another scale."""
    if values.numel() == 0:
        raise ValueError(
            f"the {what} at '{name}' is empty ({list(values.shape)}), expected at least "
            f"one {what} of one pixel"
        )
    values = values.detach().to("cpu", torch.float32)
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"the {what} at '{name}' holds values that are not numbers (NaN or infinite)."
            "\nLook at it with Preview Image: the node that made it failed"
        )
    lowest, highest = values.min().item(), values.max().item()
    if lowest < LOWEST or highest > HIGHEST:
        raise ValueError(
            f"the {what} at '{name}' has values from {lowest:g} to {highest:g}, expected "
            "0 to 1, as ComfyUI's own nodes make them.\nBring it to that scale first"
        )
    return values.clamp(0.0, 1.0)


def _fitted(mask: Tensor, pictures: Tensor, name: str) -> Tensor:
    """Scale ``mask [B, h', w']`` to the pictures' size: ``[R, 1, h, w]``."""
    if len(mask) not in (1, len(pictures)):
        raise ValueError(
            f"'reference_mask' holds {len(mask)} masks, expected 1 or one for each of the "
            f"{len(pictures)} pictures at '{name}'"
        )
    mask = mask[:, None]
    if mask.shape[-2:] != pictures.shape[-2:]:
        mask = F.interpolate(mask, size=pictures.shape[-2:], mode="bilinear", antialias=True)
    return mask.expand(len(pictures), -1, -1, -1)


def _check_visible(counts: Tensor, name: str, masked: bool) -> None:
    nothing = (counts.amax((1, 2, 3)) == 0.0).nonzero().flatten().tolist()
    if not nothing:
        return
    which = f"picture {nothing[0] + 1} of {len(counts)}" if len(counts) > 1 else "the picture"
    if masked:
        raise ValueError(
            f"'reference_mask' leaves nothing of {which} at '{name}': it is black where "
            "the picture is to be seen.\nLoad Image's MASK is white where a picture is "
            "transparent, and black all over where it has no transparency: connect it through "
            "Invert Mask, or not at all"
        )
    raise ValueError(
        f"{which} at '{name}' is transparent all over, so that nothing of it counts.\n"
        "Take a picture without an alpha channel, or one that shows something"
    )


def _kind(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
