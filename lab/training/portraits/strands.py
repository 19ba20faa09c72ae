"""Locks of hair: flattened tubes that grow from random places of the skin.

A lock is one to two centimetres wide, so that a small picture shows a volume and no strands. It
leaves its root in a given direction, is drawn down by gravity, keeps a distance from the skin, and
is kept out of the face.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .haircuts import Haircut
from .head import Head
from .meshes import Mesh, Surface, ramp, unit
from .palette import NEUTRAL
from .surfaces import tubes

__all__ = ["STEPS", "Locks", "Roots", "curled", "draw_roots", "grow", "shades", "woven"]

STEPS = 14  # points of a lock
SIDES, FLATNESS = 8, 0.40  # corners of its cross section, and its thickness by its width
VOLUME = 1.5  # how much a lock is lit as a part of the whole rather than alone
FACE_HALF_WIDTH = 0.064  # m; hair that should leave the face free keeps this far from the middle


@dataclass(frozen=True, eq=False)
class Roots:
    """The places on the fine skin where n locks start.

    Args:
        faces: vertex numbers of their triangles [n, 3].
        weights: barycentric coordinates [n, 3].
    """

    faces: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.faces)

    def at(self, values: np.ndarray) -> np.ndarray:
        """Values [v, ...] of the skin's vertices at the roots [n, ...]."""
        return np.einsum("nk,nk...->n...", self.weights, values[self.faces])


@dataclass(frozen=True, eq=False)
class Locks:
    """The n locks before they grow.

    Args:
        start: [n, 3] in the world.
        direction: unit vectors [n, 3] in the world.
        length: [n] in metres.
        clearance: height [n] above the skin in metres.
        free_face: [n], 1 where the lock leaves the face free, 0 where it may fall into it.
    """

    start: np.ndarray
    direction: np.ndarray
    length: np.ndarray
    clearance: np.ndarray
    free_face: np.ndarray


class _Collider:
    """Distance above the skin, by its nearest vertex."""

    def __init__(self, head: Head) -> None:
        # The first vertices of the fine mesh are those of the first subdivision.
        count = head.model.coarse_count
        keep = (head.model.mouth_inside[:count] < 0.3) & (head.model.lids[:count] < 0.5)
        self.points = head.skin.vertices[:count][keep]
        self.normals = head.skin.normals[:count][keep]
        self.tree = cKDTree(self.points)

    def lift(
        self, points: np.ndarray, clearance: np.ndarray, hold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Points [n, 3] pushed out to `clearance` [n], and the nearest normals [n, 3].

        Points above it are drawn to it by the share `hold`.
        """
        _, nearest = self.tree.query(points)
        normal = self.normals[nearest]
        height = np.einsum("nk,nk->n", points - self.points[nearest], normal)
        short = clearance - height
        move = np.maximum(short, 0.0) + hold * np.minimum(short, 0.0)
        return points + move[:, None] * normal, normal


def draw_roots(rng: np.random.Generator, mesh: Mesh, weight: np.ndarray, count: int) -> Roots:
    """Random places, as dense as the vertices' `weight` [v] says; none where all weights are 0."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chance = area * weight[mesh.faces].mean(1)
    if chance.sum() <= 0.0:
        return Roots(np.zeros((0, 3), int), np.zeros((0, 3)))
    chosen = rng.choice(len(chance), count, p=chance / chance.sum())
    u, v = rng.uniform(size=(2, count))
    flip = u + v > 1.0
    u, v = np.where(flip, 1.0 - u, u), np.where(flip, 1.0 - v, v)
    return Roots(mesh.faces[chosen], np.stack([1.0 - u - v, u, v], axis=1))


def grow(head: Head, locks: Locks, gravity: float, hold: float) -> tuple[np.ndarray, np.ndarray]:
    """Paths [n, STEPS, 3] of the locks and the skin's normals beside them.

    Args:
        gravity: pull downwards, against the lock's own direction of length one.
        hold: share of the way by which a lock is drawn to its clearance in each step.
    """
    collider = _Collider(head)
    point, along = locks.start, locks.direction
    paths, normals = [point], []
    step = (locks.length / (STEPS - 1))[:, None]
    for _ in range(STEPS - 1):
        local = head.local(point)
        # On the shoulders the hair slides forward or back instead of piling up.
        slide = ramp(local[:, 2], -0.09, -0.13) * np.where(local[:, 1] < 0.065, -0.5, 0.5)
        pull = np.stack([np.zeros(len(slide)), slide, np.full(len(slide), -gravity)], axis=1)
        moved = point + step * unit(along + pull)
        target, normal = collider.lift(moved, locks.clearance, hold)
        target = head.world(_beside_face(head.local(target), locks))
        along = unit(target - point)
        point = target
        paths.append(point)
        normals.append(normal)
    normals.insert(0, normals[0])
    return np.stack(paths, axis=1), np.stack(normals, axis=1)


def _beside_face(local: np.ndarray, locks: Locks) -> np.ndarray:
    """Points [n, 3] of the unturned head, those before the face moved to its side."""
    below = ramp(local[:, 2], 0.074, 0.050) * ramp(local[:, 1], 0.055, 0.035) * locks.free_face
    wanted = below * (FACE_HALF_WIDTH + 0.4 * locks.clearance)
    side = np.where(local[:, 0] < 0.0, -1.0, 1.0)
    local[:, 0] += side * np.maximum(wanted - np.abs(local[:, 0]), 0.0)
    return local


def curled(
    rng: np.random.Generator,
    haircut: Haircut,
    paths: np.ndarray,
    normals: np.ndarray,
    length: np.ndarray,
) -> np.ndarray:
    """Locks wound around their paths [n, STEPS, 3]. Neighbors share a phase: waves show."""
    along = np.linspace(0.0, 1.0, STEPS)[None] * length[:, None]
    phase = rng.normal(0.0, 0.7, (len(paths), 1)) + 40.0 * paths[:, :1, 1]
    turn = phase + 2.0 * np.pi * along / haircut.curl_length
    across = unit(np.cross(unit(np.gradient(paths, axis=1)), normals))
    amount = haircut.curl * ramp(along, 0.01, 0.05)
    sideways = (amount * np.cos(turn))[..., None] * across
    outwards = (amount * (0.5 + 0.5 * np.sin(turn)))[..., None] * normals
    return paths + sideways + outwards


def shades(rng: np.random.Generator, count: int) -> np.ndarray:
    """Colors along the locks [count, STEPS, 3]: each a little different, darker at the root."""
    each = rng.uniform(0.90, 1.10, (count, 1, 1))
    along = np.linspace(0.88, 1.06, STEPS)[None, :, None]
    return NEUTRAL * np.repeat(each * along, 3, axis=2)


def woven(
    rng: np.random.Generator,
    paths: np.ndarray,
    normals: np.ndarray,
    width: float,
    color: np.ndarray,
) -> Surface:
    """Locks along paths as flattened tubes that end in a point.

    Args:
        paths, normals, color: [n, STEPS, 3]; the normals are the skin's beside the paths.
        width: largest width in meters.
    """
    tangent = unit(np.gradient(paths, axis=1))
    across = unit(np.cross(tangent, normals))
    facing = unit(np.cross(across, tangent))
    facing *= np.sign(np.einsum("nsk,nsk->ns", facing, normals))[..., None] + 1e-9
    along = np.linspace(0.0, 1.0, STEPS)
    profile = (0.55 + 0.45 * ramp(along, 0.0, 0.25)) * np.sqrt(1.0 - 0.97 * along**4)
    half = 0.5 * width * profile * rng.uniform(0.8, 1.2, (len(paths), 1))
    mesh, ring = tubes(paths, half[..., None] * across, FLATNESS * half[..., None] * facing, SIDES)
    outward = np.repeat(facing.reshape(-1, 3), SIDES, axis=0)
    colors = np.repeat(color.reshape(-1, 3), SIDES, axis=0)
    return Surface(mesh, colors, unit(ring + VOLUME * outward))
