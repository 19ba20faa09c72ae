"""The hair of the head: a cap over the scalp, and locks that grow from it."""

import numpy as np

from .haircuts import SHAPES, Haircut
from .head import Head, HeadModel
from .meshes import Surface, ramp, smooth_noise, unit
from .palette import NEUTRAL
from .people import Identity, Sitting
from .strands import STEPS, Locks, curled, draw_roots, grow, shades, woven
from .surfaces import cut

__all__ = ["grow_hair", "hairline"]

# The hair line seen from the side: height z over depth y (m, average head, eyes at 0).
HAIRLINE_Y = (-0.030, 0.000, 0.020, 0.035, 0.050, 0.060, 0.070, 0.090, 0.102, 0.118, 0.170)
HAIRLINE_Z = (0.071, 0.066, 0.058, 0.040, 0.004, -0.012, 0.014, 0.014, -0.035, -0.080, -0.090)
HOLD = {"gather": 0.9, "part": 0.25, "back": 0.5, "forward": 0.35, "out": 0.0}  # to the skin
PARTINGS = (-0.028, 0.0, 0.028)  # x of the parting
ROOT_FIELD = 0.0005  # m above the hair line where locks start
UNDER_HAT = {"volume": 0.35, "cap": 0.006}  # a hat presses hair down: a factor, m at most
BUN_PLACES = ((0.0, 0.15, 0.10), (0.0, 0.19, 0.01))  # high and low, from the eyes
BUN_LOCKS, BUN_WIDTH = 40, 0.024


def hairline(model: HeadModel, receding: float) -> np.ndarray:
    """Signed height above the hair line [n] (m): positive where hair grows."""
    x, y, z = model.place.T
    distance = np.abs(x)
    line = np.interp(y, HAIRLINE_Y, HAIRLINE_Z)
    front = ramp(y, 0.06, 0.02)
    line = line - 0.10 * np.maximum(distance - 0.03, 0.0) * front
    temple = np.exp(-(((distance - 0.042) / 0.018) ** 2))
    line = line + front * receding * (0.010 + 0.026 * temple)
    ear = (distance > 0.0755) & (z < 0.015) & (y > 0.045) & (y < 0.105)
    return np.where(ear, -0.05, z - line)


def grow_hair(head: Head, person: Identity, sitting: Sitting) -> list[Surface]:
    """Cap and locks of the haircut; empty for a bald head."""
    if sitting.haircut == "bald":
        return []
    haircut = SHAPES[sitting.haircut]
    rng = np.random.default_rng(sitting.hair_seed)
    bare = sitting.hat == "none"
    volume = rng.uniform(0.8, 1.3) if bare else UNDER_HAT["volume"]
    field = hairline(head.model, person.receding)
    field = field + 0.002 * smooth_noise(head.model.place, 0.012, sitting.hair_seed)
    cap = haircut.cap * (1.0 if bare else min(1.0, UNDER_HAT["cap"] / haircut.cap))
    cap = cap * (0.6 + 0.4 * volume)
    parting = float(rng.choice(PARTINGS))
    bun = np.array(BUN_PLACES[0 if rng.uniform() < 0.6 else 1])
    parts = [_cap(head, sitting, field, cap)]
    if haircut.count:
        locks = _comb(rng, head, haircut, field, cap, volume, parting, bun)
        paths, normals = grow(head, locks, haircut.gravity, HOLD[haircut.flow])
        if haircut.curl:
            paths = curled(rng, haircut, paths, normals, locks.length)
        colors = shades(rng, len(paths))
        parts.append(woven(rng, paths, normals, haircut.width, colors))
    if haircut.flow == "gather":
        parts.append(_bun(rng, head, bun))
    return parts


def _comb(
    rng: np.random.Generator,
    head: Head,
    haircut: Haircut,
    field: np.ndarray,
    cap: float,
    volume: float,
    parting: float,
    bun: np.ndarray,
) -> Locks:
    """The locks of the haircut before they grow.

    Args:
        field: height above the hair line at the skin's vertices [v] (m).
        cap: thickness of the cap (m).
        volume: factor of the haircut's.
        parting: x of the parting (m).
        bun: place [3] of the knot, relative to the eyes (m).
    """
    roots = draw_roots(rng, head.skin, (field > ROOT_FIELD).astype(float), haircut.count)
    place = roots.at(head.model.place)
    start, normal = roots.at(head.skin.vertices), roots.at(head.skin.normals)
    above = rng.uniform(0.0, 1.0, len(start)) ** 0.7 * haircut.volume * volume
    edge = ramp(roots.at(field), 0.0, 0.02)
    clearance = 0.001 + cap * edge + above * (0.3 + 0.7 * edge)
    flow = _flow(haircut, place, parting, bun) + rng.normal(0.0, haircut.disorder, place.shape)
    length, free_face = _lengths(rng, haircut, place), np.ones(len(start))
    if haircut.flow == "gather":
        length = np.linalg.norm(bun - place, axis=1) * 1.15
    if rng.uniform() < haircut.fringe:
        _comb_fringe(rng, place, parting, flow, length, free_face)
    direction = unit(unit(flow) @ head.pose.rotation.T + haircut.lift * normal)
    return Locks(start + normal * 0.3 * clearance[:, None], direction, length, clearance, free_face)


def _comb_fringe(
    rng: np.random.Generator,
    place: np.ndarray,
    parting: float,
    flow: np.ndarray,
    length: np.ndarray,
    free_face: np.ndarray,
) -> None:
    """Lets the front hair fall onto the forehead: changes the last three arrays."""
    front = (place[:, 1] < 0.02) & (place[:, 2] > 0.05) & (np.abs(place[:, 0]) < 0.055)
    count = int(front.sum())
    flow[front] = rng.normal([0.0, -0.6, -1.0], 0.06, (count, 3))
    flow[front, 0] += 0.5 * (place[front, 0] - parting)
    above_brows = place[front, 2] - float(rng.uniform(0.024, 0.040))
    length[front] = np.maximum(above_brows, 0.01) * rng.uniform(0.85, 1.2, count)
    free_face[front] = 0.0


def _flow(haircut: Haircut, place: np.ndarray, parting: float, bun: np.ndarray) -> np.ndarray:
    """Combing direction in the unturned head [n, 3] for roots at `place` [n, 3]."""
    x, y, z = place.T
    zero = np.zeros_like(x)
    if haircut.flow == "forward":
        return np.stack([0.35 * x / 0.07, -1.0 + zero, -0.35 - 6.0 * np.maximum(0.04 - z, 0.0)], 1)
    if haircut.flow == "back":
        return np.stack([2.5 * x, 1.0 + zero, 0.15 - 4.0 * np.maximum(0.06 - z, 0.0)], 1)
    if haircut.flow == "out":
        return unit(place - [0.0, 0.075, 0.02]) + [0.0, 0.0, 0.1]
    if haircut.flow == "gather":
        return bun - place
    side = np.where(x < parting, -1.0, 1.0)
    back = 0.35 + 0.5 * ramp(y, 0.08, 0.14)
    down = -0.1 - 0.8 * ramp(z, 0.05, 0.0)
    return np.stack([side * (1.0 - 0.5 * ramp(y, 0.10, 0.16)), back, down], axis=1)


def _lengths(rng: np.random.Generator, haircut: Haircut, place: np.ndarray) -> np.ndarray:
    """Lengths of the locks [n] (m)."""
    if haircut.length == 0.0:
        inward = np.maximum(0.085 - np.abs(place[:, 0]), 0.0)
        length = place[:, 2] - haircut.hem + 0.55 * inward
        return np.maximum(length, 0.02) * rng.uniform(0.92, 1.06, len(place))
    length = np.full(len(place), haircut.length)
    if haircut.side_length:
        top = ramp(place[:, 2], 0.03, 0.075)
        length = haircut.side_length + (haircut.length - haircut.side_length) * top
    return length * rng.uniform(0.75, 1.2, len(place))


def _cap(head: Head, sitting: Sitting, field: np.ndarray, height: float) -> Surface:
    """A closed surface of this height (m) below the locks."""
    place = head.place
    field = field[: len(place)]
    bumps = 1.0 + 0.10 * smooth_noise(place, 0.030, sitting.hair_seed + 1)
    lift = 0.0006 + height * ramp(field, 0.0, 0.030) ** 0.7 * np.clip(bumps, 0.6, 1.4)
    raised = head.raised(lift)
    shade = 0.90 + 0.05 * smooth_noise(place, 0.020, sitting.hair_seed + 2, 24)
    mesh, (shade,) = cut(raised, field, shade)
    color = NEUTRAL * np.repeat(shade[:, None], 3, axis=1)
    return Surface(mesh, color, mesh.normals)


def _bun(rng: np.random.Generator, head: Head, place: np.ndarray) -> Surface:
    """A knot of hair at `place` [3]: locks wound around a ball."""
    radius = float(rng.uniform(0.030, 0.042))
    axis = unit(rng.normal(size=(BUN_LOCKS, 3)))
    helper = unit(np.cross(axis, [0.3, 0.5, 0.81]))
    other = np.cross(axis, helper)
    start = rng.uniform(0, 6.28, (BUN_LOCKS, 1, 1))
    angle = np.linspace(0.0, 2.4, STEPS)[None, :, None] + start
    around = np.cos(angle) * helper[:, None] + np.sin(angle) * other[:, None]
    size = radius * rng.uniform(0.75, 1.05, (BUN_LOCKS, 1, 1))
    paths = head.world(place + around * size)
    colors = shades(rng, BUN_LOCKS)
    return woven(rng, paths, around @ head.pose.rotation.T, BUN_WIDTH, colors)
