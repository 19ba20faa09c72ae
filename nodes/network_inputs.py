"""The inputs of loaders of ONNX networks: size, scale and colors of the pictures they want."""

from comfy_api.latest import io

from ..guidance.wording import quoted
from ..host.image_networks import IMAGENET, InputOptions
from .parsing.numbers import numbers_in

__all__ = ["input_options", "network_inputs"]

CUSTOM = "custom"

# Mean and standard deviation of pixel values of 0 to 255.
NORMALIZATIONS = {
    "imagenet": IMAGENET,
    "-1 to 1": ((127.5,), (127.5,)),
    "0 to 1": ((0.0,), (255.0,)),
}

# Larger inputs than any network has.
LARGEST_SIDE = 4096


def network_inputs(free_size: int) -> list[io.Input]:
    """Make the inputs that say how a network wants its pictures; ``input_options`` takes them.

    Args:
        free_size: side in pixels that a network of any size gets, unless the user says another.
    """
    return [
        io.Combo.Input(
            "normalization",
            options=[*NORMALIZATIONS, CUSTOM],
            default="imagenet",
            tooltip=(
                "The scale of colors that the network was trained on, as its "
                "documentation says; with a wrong one it recognizes little. imagenet: "
                "most networks from PyTorch; -1 to 1 and 0 to 1: plain scales; custom: "
                "'mean' and 'std' below."
            ),
        ),
        io.Int.Input(
            "size",
            default=0,
            min=0,
            max=LARGEST_SIDE,
            tooltip=(
                "Side in pixels of the square that pictures are scaled to. 0 is the network's own "
                f"size, or {free_size} for a network that takes any."
            ),
        ),
        io.Combo.Input(
            "color_order",
            options=["RGB", "BGR"],
            default="RGB",
            advanced=True,
            tooltip=(
                "The order of the colors that the network was trained on; BGR for networks that "
                "were trained with OpenCV. Networks of one channel see gray."
            ),
        ),
        io.String.Input(
            "mean",
            default="127.5",
            advanced=True,
            tooltip=(
                "For the normalization 'custom': what is subtracted from pixel values of 0 to "
                "255, one number or three in the network's order of colors."
            ),
        ),
        io.String.Input(
            "std",
            default="127.5",
            advanced=True,
            tooltip=(
                "For the normalization 'custom': what the difference is divided by, one"
                " number or three. A network that takes 0 to 255 itself wants mean 0 "
                "and std 1."
            ),
        ),
    ]


def input_options(
    normalization: str, size: int, color_order: str, mean: str, std: str, **others
) -> InputOptions:
    """Turn the values of ``network_inputs`` into InputOptions; others pass as they are.

    Raises:
        ValueError: 'mean' or 'std' of a custom normalization are not one or three numbers.
    """
    values = NORMALIZATIONS.get(normalization) or (_channels("mean", mean), _channels("std", std))
    if min(values[1]) <= 0.0:
        raise ValueError(f"'std' must be above 0, got {quoted(std)}")
    return InputOptions(*values, color_order.lower(), size, **others)


def _channels(name: str, text: str) -> tuple[float, ...]:
    values = numbers_in(text)
    if values is None or len(values) not in (1, 3):
        raise ValueError(
            f"'{name}' must be one or three numbers such as '127.5' or '123.7, 116.3, 103.5', "
            f"got {quoted(text)}"
        )
    return values
