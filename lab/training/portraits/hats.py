"""Hats: beanies, caps with a visor, hats with a brim.

Places are metres on the average person, eyes at the origin.
"""

import numpy as np

from .head import Head
from .meshes import Mesh, Surface, ramp
from .palette import NEUTRAL
from .people import Sitting
from .subdivision import split_quads
from .surfaces import cut, shell

__all__ = ["hat", "under_hat"]

FRONT_Z, SLOPE = 0.056, 0.36  # the lower edge of a hat falls towards the neck
LIFT = 0.013
SEAM_HEIGHT = 0.008  # of the crown, where visor and brim are sewn on
HAIR_BELOW = 0.004  # hair reaches this far under the hat
VISOR_ANGLE, VISOR_LENGTH = 1.05, 0.058  # radians to each side
BRIM_LENGTH = 0.050


def hat(head: Head, sitting: Sitting) -> list[Surface]:
    """The hat and its visor or brim."""
    rng = np.random.default_rng(sitting.seed + 6)
    base = np.full(3, NEUTRAL)
    field = _above_edge(head.place)
    azimuth = np.arctan2(head.place[:, 0], head.place[:, 1] - 0.065)
    if sitting.hat == "beanie":
        return [_beanie(rng, head, base, field, azimuth)]
    tall = float(rng.uniform(0.020, 0.035)) if sitting.hat == "brim" else 0.004
    raised = head.raised(LIFT + tall * ramp(field, 0.02, 0.09))
    band = ramp(field, 0.026, 0.023) if sitting.hat == "brim" else np.zeros_like(field)
    seams = 1.0 - 0.18 * (np.abs(np.sin(azimuth * 3.0)) < 0.06)
    crown = shell(raised, field, base * (seams * (1.0 - 0.55 * band))[:, None])
    rim, (height,) = cut(raised, field, field)
    seam = head.local(rim.vertices)[height < SEAM_HEIGHT]
    return [crown, _brim(head, seam, base, visor=sitting.hat == "cap")]


def under_hat(head: Head, hair: Surface) -> Surface:
    """The hair that a hat leaves visible."""
    above = _above_edge(head.local(hair.mesh.vertices))
    mesh, (color, normals) = cut(hair.mesh, -above + HAIR_BELOW, hair.color, hair.normals)
    return Surface(mesh, color, normals)


def _above_edge(place: np.ndarray) -> np.ndarray:
    """Height of places [n, 3] above the lower edge of a hat [n]."""
    return place[:, 2] - FRONT_Z + SLOPE * (place[:, 1] + 0.02)


def _beanie(
    rng: np.random.Generator, head: Head, base: np.ndarray, field: np.ndarray, azimuth: np.ndarray
) -> Surface:
    """Make a ribbed beanie with a fold at its edge."""
    ribs = np.sin(azimuth * 46.0)
    shade = 1.0 + 0.12 * ribs * ramp(field, 0.10, 0.06)
    fold = ramp(field, 0.034, 0.030)
    puff = float(rng.uniform(0.0, 0.02)) * ramp(field, 0.06, 0.12)
    lift = LIFT + 0.005 * fold + puff + 0.0008 * ribs
    color = base * (shade * (1.0 - 0.1 * fold))[:, None]
    return shell(head.raised(lift), field, np.clip(color, 0.0, 0.9))


def _brim(head: Head, seam: np.ndarray, base: np.ndarray, visor: bool) -> Surface:
    """A brim, or a visor in front, from the points `seam` [n, 3] of the head's own frame."""
    middle_y = 0.5 * (seam[:, 1].min() + seam[:, 1].max())
    azimuth = np.arctan2(seam[:, 0], -(seam[:, 1] - middle_y))
    radius = np.hypot(seam[:, 0], seam[:, 1] - middle_y)
    end, count = (VISOR_ANGLE, 41) if visor else (np.pi, 73)
    out = np.linspace(0.0, 1.0, 6)
    rows = []
    for angle in np.linspace(-end, end, count):
        away = np.abs((azimuth - angle + np.pi) % (2.0 * np.pi) - np.pi)
        near = away <= max(0.15, away.min())
        if visor:
            length = VISOR_LENGTH * np.sqrt(max(np.cos(angle * 1.45), 0.0))
            droop = -0.25 * length * out**1.5
        else:
            length = BRIM_LENGTH
            droop = 0.10 * length * out**2
        r = radius[near].max() - 0.003 + length * out
        height = seam[near, 2].mean() + droop
        rows.append(np.stack([np.sin(angle) * r, middle_y - np.cos(angle) * r, height], axis=1))
    grid = np.array(rows)
    number = np.arange(grid.size // 3).reshape(grid.shape[:2])
    corners = (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:])
    faces = split_quads(np.stack(corners, axis=-1).reshape(-1, 4))
    mesh = Mesh(head.world(grid.reshape(-1, 3)), faces)
    return Surface(mesh, np.tile(base * 0.9, (len(mesh.vertices), 1)), mesh.normals)
