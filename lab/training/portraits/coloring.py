"""The colors of hair, beard, clothes and hat, given to a picture after it was traced.

Tracing takes a second and coloring some milliseconds: what may have any color is traced in a
neutral gray, and each tracing becomes several pictures. The color of light that these surfaces
throw on others stays that of gray, and so do their own highlights in proportion.
"""

import numpy as np

from .palette import CLOTH, NEUTRAL, jitter
from .people import Sitting
from .scene import CLASS

__all__ = ["tint"]


def tint(labels: np.ndarray, sitting: Sitting) -> np.ndarray:
    """What the colors of a picture with these classes [h, w] are multiplied by [h, w, 3]."""
    rng = np.random.default_rng(sitting.color_seed)
    cloth = jitter(rng, CLOTH[sitting.cloth_color], 0.12)
    hat = jitter(rng, CLOTH[sitting.hat_color], 0.12)
    factors = np.ones((len(CLASS), 3))
    for name, color in (
        ("hair", sitting.hair),
        ("beard", sitting.hair),
        ("clothing", cloth),
        ("hat", hat),
    ):
        factors[CLASS[name]] = np.array(color) / NEUTRAL
    if sitting.beard == "stubble":  # painted on the skin
        factors[CLASS["beard"]] = 1.0
    return factors[labels]
