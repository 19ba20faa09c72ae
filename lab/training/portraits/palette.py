"""The colors of people, clothes and backgrounds.

Linear reflectances, red green blue, 0 to 1, chosen by eye under this package's light; they are not
measured.
"""

import numpy as np

__all__ = ["BACKGROUND", "CLOTH", "HAIR", "IRIS", "NEUTRAL", "SKIN", "Color", "jitter"]

Color = tuple[float, float, float]

# Darkest and lightest skin of each ancestry; a person's lies between them.
SKIN: dict[str, tuple[Color, Color]] = {
    "african": ((0.095, 0.050, 0.032), (0.300, 0.170, 0.105)),
    "asian": ((0.470, 0.290, 0.180), (0.700, 0.480, 0.350)),
    "caucasian": ((0.560, 0.350, 0.250), (0.760, 0.530, 0.430)),
}
HAIR: dict[str, Color] = {
    "black": (0.014, 0.012, 0.011),
    "brown": (0.085, 0.042, 0.021),
    "blond": (0.480, 0.310, 0.130),
    "red": (0.300, 0.085, 0.028),
    "grey": (0.420, 0.415, 0.410),
}
IRIS: dict[str, Color] = {
    "brown": (0.075, 0.035, 0.015),
    "hazel": (0.160, 0.100, 0.035),
    "green": (0.120, 0.190, 0.080),
    "blue": (0.110, 0.220, 0.370),
    "grey": (0.210, 0.240, 0.260),
}
CLOTH: dict[str, Color] = {
    "red": (0.460, 0.040, 0.045),
    "blue": (0.050, 0.110, 0.420),
    "green": (0.050, 0.270, 0.090),
    "white": (0.780, 0.770, 0.750),
    "black": (0.025, 0.025, 0.028),
    "yellow": (0.700, 0.460, 0.050),
    "pink": (0.690, 0.290, 0.370),
    "purple": (0.200, 0.070, 0.300),
    "grey": (0.260, 0.260, 0.270),
    "brown": (0.200, 0.110, 0.055),
}
BACKGROUND: dict[str, Color] = {
    "grey": (0.330, 0.330, 0.340),
    "blue": (0.160, 0.290, 0.560),
    "green": (0.150, 0.380, 0.190),
    "beige": (0.640, 0.530, 0.390),
    "white": (0.820, 0.820, 0.810),
    "dark": (0.040, 0.042, 0.050),
    "pink": (0.640, 0.360, 0.380),
}

# What hair, beards, clothes and hats are made of until they are colored, see `coloring`.
NEUTRAL = 0.28

LIGHTEST = 0.9  # no surface of everyday life reflects more


def jitter(rng: np.random.Generator, color: Color, amount: float) -> Color:
    """The color with its brightness changed by up to `amount`, each channel by half of that.

    `amount` is a fraction of the color.
    """
    factor = rng.uniform(1.0 - amount, 1.0 + amount)
    channels = rng.uniform(1.0 - amount / 2, 1.0 + amount / 2, 3)
    varied = np.clip(np.array(color) * factor * channels, 0.0, LIGHTEST)
    red, green, blue = (float(c) for c in varied)
    return red, green, blue
