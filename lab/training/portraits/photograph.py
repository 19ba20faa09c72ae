"""What a photographer does: background, exposure, development."""

import numpy as np
from scipy import ndimage

from .palette import BACKGROUND, jitter
from .people import Identity, Sitting

__all__ = ["backdrop", "develop", "exposure"]

MIDDLE_SKIN, EXPOSURE_POWER = 0.42, 0.25  # reflectance exposed as it is; 1 makes all skin equal
KNEE = 0.7  # of linear light; highlights above it roll off instead of clipping


def exposure(person: Identity) -> float:
    """The factor of the light: dark skin is photographed a little longer."""
    return float((MIDDLE_SKIN / max(np.mean(person.skin), 0.05)) ** EXPOSURE_POWER)


def backdrop(side: int, sitting: Sitting) -> np.ndarray:
    """The background [side, side, 3], linear light, 0 to 1."""
    rng = np.random.default_rng(sitting.color_seed + 9)
    color = np.array(jitter(rng, BACKGROUND[sitting.background_color], 0.15))
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    shade = _shade(rng, sitting.backdrop, x, y) * (1.0 + 0.15 * sitting.light_side * x)
    noise = ndimage.gaussian_filter(rng.normal(size=(side, side)), 0.09 * side)
    shade = shade + 0.05 * noise / max(float(noise.std()), 1e-9)
    return np.clip(color * np.clip(shade, 0.2, 1.8)[..., None], 0.0, 1.0)


def develop(linear: np.ndarray) -> np.ndarray:
    """Linear light [...] -> 8-bit sRGB (IEC 61966-2-1)."""
    over = np.maximum(linear - KNEE, 0.0)
    rolled = KNEE + (1.0 - KNEE) * (1.0 - np.exp(-over / (1.0 - KNEE)))
    x = np.clip(np.where(linear > KNEE, rolled, linear), 0.0, 1.0)
    encoded = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-8) ** (1 / 2.4) - 0.055)
    return (encoded * 255.0 + 0.5).astype(np.uint8)


def _shade(rng: np.random.Generator, kind: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Brightness of this kind of backdrop [h, w] at places from -0.5 to 0.5, about 1."""
    if kind == "vertical":
        return 1.0 - 0.55 * rng.uniform(0.4, 1.0) * y * rng.choice([-1.0, 1.0])
    if kind == "diagonal":
        turn = rng.uniform(0.0, 2.0 * np.pi)
        return 1.0 + 0.7 * rng.uniform(0.4, 1.0) * (np.cos(turn) * x + np.sin(turn) * y)
    if kind == "halo":
        center = rng.uniform(-0.15, 0.15, 2)
        return 1.25 - 1.1 * np.hypot(x - center[0], y - center[1])
    if kind == "wall":
        edge = rng.uniform(-0.4, 0.4)
        slope = rng.uniform(-0.15, 0.15)
        return 1.0 - 0.3 * (1.0 / (1.0 + np.exp(-(x - edge - slope * y) / 0.012)))
    shade = np.ones_like(x)
    if kind == "bokeh":
        for _ in range(int(rng.integers(8, 18))):
            cx, cy, r = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(0.04, 0.14)
            disc = 1.0 / (1.0 + np.exp((np.hypot(x - cx, y - cy) - r) / 0.008))
            shade = shade + rng.uniform(0.08, 0.35) * disc
    return shade
