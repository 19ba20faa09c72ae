"""The 68 contour points of the iBUG 300-W scheme, as fixed vertices of the head mesh.

Order: 0-16 jaw, 17-26 brows, 27-35 nose, 36-47 eyes, 48-67 mouth; each from the left of the
picture (the portrait's right) to its right, closed lines clockwise. All coordinates below are
metres on the average person, relative to the middle between the eyes (see `head`).
"""

from __future__ import annotations  # HeadModel is made with this module

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .meshes import vertex_normals

if TYPE_CHECKING:
    from .head import HeadModel

__all__ = ["brow_height", "find_landmarks"]

EYE_X = 0.0295  # centers of the average eyes
EYE_REACH = 0.022
JAW_CENTER = (0.0, -0.035)  # x, z
JAW_START_DEGREES = -22.0  # above the horizontal, near the ear
JAW_FRONT_OF = (0.047, 0.012)  # y beside the cheeks and at the chin; ears and neck lie behind
LID_BEFORE = -0.004  # y; the socket lies behind
BROW_X = (0.051, 0.041, 0.031, 0.021, 0.011)
NOSE_TOP_Z = -0.001
NOSE_BASE_X = (-0.0135, -0.007, 0.0, 0.007, 0.0135)
MOUTH_SHARES = (-1.0, -0.62, -0.26, 0.0, 0.26, 0.62, 1.0)  # outer lip, of half the mouth's width
INNER_SHARES = (-0.82, -0.36, 0.0, 0.36, 0.82)


def brow_height(x: np.ndarray, arch: float = 1.0) -> np.ndarray:
    """Height of the middle of the brow over the eyes at the distance |x| from the middle."""
    along = np.clip((np.abs(x) - 0.008) / 0.042, 0.0, 1.0)
    return 0.0225 + 0.0045 * arch * np.sin(along * np.pi * 0.9) - 0.0010 * along


def find_landmarks(model: HeadModel) -> np.ndarray:
    """Vertex numbers of the 68 points."""
    place = model.place
    normals = vertex_normals(place, model.faces)
    outside = (normals[:, 1] < 0.1) & (model.mouth_inside < 0.3)

    def front(x: float, z: float) -> int:
        """The vertex in front nearest to (x, z) in the picture plane."""
        distance = np.hypot(place[:, 0] - x, place[:, 2] - z) + np.where(outside, 0.0, 1.0)
        return int(np.argmin(distance + 0.05 * (place[:, 1] - place[:, 1].min())))

    jaw = _jaw(place)
    brows = [front(-x, float(brow_height(np.array(x)))) for x in BROW_X]
    brows += [front(x, float(brow_height(np.array(x)))) for x in reversed(BROW_X)]
    nose = _nose(place, outside, front)
    eyes = _eye(place, -EYE_X) + _eye(place, EYE_X)
    return np.array(jaw + brows + nose + eyes + _mouth(model, place, front))


def _jaw(place: np.ndarray) -> list[int]:
    x, z = place[:, 0] - JAW_CENTER[0], place[:, 2] - JAW_CENTER[1]
    angle, radius = np.degrees(np.arctan2(-z, -x)), np.hypot(x, z)
    beside, chin = JAW_FRONT_OF
    depth = beside + (chin - beside) * np.clip(np.sin(np.radians(angle)), 0.0, 1.0) ** 2
    usable = (place[:, 1] < depth) & (radius < 0.12)
    points = []
    for wanted in np.linspace(JAW_START_DEGREES, 180.0 - JAW_START_DEGREES, 17):
        away = np.abs((angle - wanted + 180.0) % 360.0 - 180.0)
        points.append(int(np.argmax(np.where(usable & (away < 1.5), radius, 0.0))))
    return points


def _nose(
    place: np.ndarray, outside: np.ndarray, front: Callable[[float, float], int]
) -> list[int]:
    middle = outside & (np.abs(place[:, 0]) < 0.002)
    region = middle & (place[:, 2] < -0.01) & (place[:, 2] > -0.055)
    tip = int(np.argmin(np.where(region, place[:, 1], 9.0)))
    heights = np.linspace(NOSE_TOP_Z, place[tip, 2], 4)[:3]
    under = middle & (place[:, 2] < place[tip, 2] - 0.004) & (place[:, 2] > place[tip, 2] - 0.025)
    base = place[int(np.argmax(np.where(under, place[:, 1], -9.0))), 2]
    return [front(0.0, z) for z in heights] + [tip] + [front(x, base) for x in NOSE_BASE_X]


def _eye(place: np.ndarray, center: float) -> list[int]:
    x, z = place[:, 0] - center, place[:, 2]
    usable = (place[:, 1] < LID_BEFORE) & (np.hypot(x, z) < EYE_REACH)
    sector = np.floor(np.arctan2(z, x) / (2.0 * np.pi) * 64).astype(int)
    rim = []
    for number in range(-32, 32):
        radius = np.where(usable & (sector == number), np.hypot(x, z), 9.0)
        if radius.min() < 9.0:
            rim.append(int(np.argmin(radius)))
    rim_points = place[np.array(rim)]
    first, last = np.argmin(rim_points[:, 0]), np.argmax(rim_points[:, 0])
    start, end = rim_points[first], rim_points[last]

    def at(share: float, upper: bool) -> int:
        line = start + share * (end - start)
        side = (rim_points[:, 2] > line[2]) == upper
        return rim[int(np.argmin(np.where(side, np.abs(rim_points[:, 0] - line[0]), 9.0)))]

    upper, lower = [at(s, True) for s in (0.33, 0.67)], [at(s, False) for s in (0.67, 0.33)]
    return [rim[first], *upper, rim[last], *lower]


def _mouth(model: HeadModel, place: np.ndarray, front: Callable[[float, float], int]) -> list[int]:
    still, opened = model.subdivide(model.average()), model.subdivide(model.average(jawOpen=1.0))
    drop = still[:, 2] - opened[:, 2]
    lips = (model.lips > 0.5) & (place[:, 1] < 0.01)
    lower = lips & (drop > 0.5 * drop[lips].max())
    upper = lips & ~lower
    left, right = place[lips, 0].min(), place[lips, 0].max()
    half = (right - left) / 2.0

    def extreme(part: np.ndarray, share: float, sign: float) -> int:
        near = part & (np.abs(place[:, 0] - share * half) < 0.0016)
        return int(np.argmax(np.where(near, sign * place[:, 2], -9.0)))

    corners = [int(np.argmin(np.where(lips, s * place[:, 0], 9.0))) for s in (1.0, -1.0)]
    top = [extreme(upper, s, 1.0) for s in MOUTH_SHARES[1:-1]]
    bottom = [extreme(lower, s, -1.0) for s in MOUTH_SHARES[-2:0:-1]]
    ends = [front(sign * INNER_SHARES[-1] * half, place[corners[0], 2]) for sign in (-1.0, 1.0)]
    inner_top = [ends[0], *(extreme(upper, s, -1.0) for s in INNER_SHARES[1:-1]), ends[1]]
    inner_bottom = [extreme(lower, s, 1.0) for s in INNER_SHARES[-2:0:-1]]
    return [corners[0], *top, corners[1], *bottom, *inner_top, *inner_bottom]
