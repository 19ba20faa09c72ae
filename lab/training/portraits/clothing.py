"""Garments over the shoulders. Places are metres on the average person, eyes at the origin."""

import numpy as np

from .head import Head
from .meshes import Surface, ramp, smooth_noise
from .palette import NEUTRAL
from .people import Sitting
from .surfaces import shell

__all__ = ["covered", "dress"]

NECK_BASE_X, NECK_BASE_Z = 0.058, -0.150
# Depth of a neckline below the base of the neck: at the side, in front.
NECKLINES = {
    "crew": (0.012, 0.022),
    "scoop": (0.035, 0.075),
    "vneck": (0.020, 0.085),
    "boat": (0.070, 0.035),
    "shirt": (0.006, 0.055),
    "jacket": (0.020, 0.150),
}
POINTED = ("vneck", "shirt", "jacket")
BACK_DEPTH = 0.010
TURTLENECK_TOP = -0.118
# Above the skin: a shirt below a jacket, any other garment, a jacket.
SHIRT_LIFT, CLOTH_LIFT, JACKET_LIFT = 0.005, 0.007, 0.014
SHIRT = 2.2  # how much lighter a shirt is than the jacket over it


def covered(kind: str, place: np.ndarray) -> np.ndarray:
    """Metres below the neckline of the garment at places [n, 3]; positive where it covers."""
    x, y, z = place.T
    if kind == "turtleneck":
        return TURTLENECK_TOP - 0.10 * np.maximum(y - 0.02, 0.0) - z
    side, front = NECKLINES[kind]
    in_front = ramp(y, 0.085, 0.045)
    front = front * in_front + BACK_DEPTH * (1.0 - in_front)
    below = NECK_BASE_Z + 0.15 * np.maximum(y - 0.05, 0.0) - z
    if kind in POINTED:
        depth = np.abs(x) / (NECK_BASE_X + side) + below / front
    else:
        outward = np.maximum(np.abs(x) - NECK_BASE_X, 0.0) / side
        depth = np.hypot(outward, np.maximum(below, 0.0) / front) + np.minimum(below, 0.0) / front
    return (depth - 1.0) * front


def dress(head: Head, sitting: Sitting) -> list[Surface]:
    """The garments over the shoulders."""
    weave = 1.0 + 0.05 * smooth_noise(head.place, 0.025, sitting.seed)[:, None]
    color = NEUTRAL * np.repeat(weave, 3, axis=1)
    folds = 0.0018 * smooth_noise(head.place * [1.0, 1.0, 0.35], 0.05, sitting.seed + 2)
    kind = sitting.garment
    if kind == "jacket":
        return _jacket(head, color, folds)
    depth = covered(kind, head.place)
    lift = CLOTH_LIFT + np.clip(folds, -0.003, 0.004)
    garments = [shell(head.raised(lift), depth, color)]
    if kind == "shirt":
        garments.append(_collar(head, color * 0.96))
    if kind == "turtleneck":
        ribbed = head.raised(0.011 + 0.002 * np.sin(head.place[:, 0] * 400.0))
        garments.append(shell(ribbed, np.minimum(depth, 0.030 - depth), color * 0.95))
    return garments


def _jacket(head: Head, color: np.ndarray, folds: np.ndarray) -> list[Surface]:
    """A jacket of these colors [n, 3] over a shirt."""
    shirt = np.full((len(head.place), 3), SHIRT * NEUTRAL)
    depth = covered("jacket", head.place)
    lapel = np.exp(-(((depth - 0.020) / 0.012) ** 2))
    outer = head.raised(JACKET_LIFT + folds + 0.003 * lapel)
    return [
        shell(head.raised(SHIRT_LIFT), covered("shirt", head.place), shirt),
        _collar(head, shirt),
        shell(outer, depth, color * (1.0 - 0.25 * lapel[:, None])),
    ]


def _collar(head: Head, color: np.ndarray) -> Surface:
    """A fold around the neck, open in front."""
    x, y, z = head.place.T
    top = -0.128 - 0.12 * np.maximum(0.06 - y, 0.0)
    bottom = NECK_BASE_Z - 0.020 - 0.25 * np.maximum(0.06 - y, 0.0)
    open_front = np.abs(x) - 0.010 - 0.5 * np.maximum(top - z, 0.0)
    around = np.hypot(x, 0.8 * (y - 0.085)) < 0.115
    field = np.minimum(np.minimum(top - z, z - bottom), np.where(y < 0.07, open_front, 1.0))
    field = np.where(around, field, -0.01)
    lift = 0.008 + 0.014 * ramp(z, top, bottom)
    return shell(head.raised(lift), field, color)
