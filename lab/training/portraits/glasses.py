"""Glasses: frames without lenses."""

import numpy as np

from .head import Head
from .meshes import Mesh
from .people import Sitting
from .surfaces import tube

__all__ = ["frame_color", "glasses"]

# Half width and half height of a rim (m), and the power of its superellipse: 2 is an ellipse.
RIMS = {
    "round": (0.0235, 0.0225, 2.0),
    "oval": (0.0265, 0.0180, 2.2),
    "square": (0.0265, 0.0200, 4.0),
}
WRAP = 2.2  # 1/m; the frame bends back by this times the squared distance from its middle
EAR_Y = 0.075  # where the temples end
FRAME_COLORS = (  # black, tortoise, gold, red
    (0.015, 0.013, 0.012),
    (0.120, 0.045, 0.018),
    (0.350, 0.260, 0.120),
    (0.220, 0.020, 0.020),
)


def glasses(head: Head, sitting: Sitting, eyes: np.ndarray, points: np.ndarray) -> list[Mesh]:
    """Make the rims, the temples and the bridge.

    Args:
        eyes: centers of the eyes [2, 3] in the head's own frame.
        points: the 68 landmarks [68, 3] in the same frame.
    """
    rng = np.random.default_rng(sitting.seed + 5)
    width, height, power = RIMS[sitting.glasses]
    scale, radius = rng.uniform(0.93, 1.08), float(rng.uniform(0.0014, 0.0024))
    plane = min(points[27:29, 1].min() + 0.003, eyes[:, 1].min() - 0.026)
    angle = np.linspace(0.0, 2.0 * np.pi, 36, endpoint=False)
    cosine, sine = np.cos(angle), np.sin(angle)
    rim_x = width * scale * np.sign(cosine) * np.abs(cosine) ** (2.0 / power)
    rim_z = height * scale * np.sign(sine) * np.abs(sine) ** (2.0 / power)
    temple_x = float(np.abs(points[[0, 16], 0]).max()) + 0.004
    meshes = []
    for side, eye in zip((-1.0, 1.0), eyes, strict=True):
        center_x = side * max(abs(eye[0]), width * scale + 0.007)
        x = center_x + rim_x
        rim = np.stack([x, plane + WRAP * x**2, eye[2] - 0.003 + rim_z], axis=1)
        meshes.append(tube(rim, radius, closed=True))
        hinge_x = side * (abs(center_x) + width * scale)
        hinge = [hinge_x, plane + WRAP * hinge_x**2, eye[2] + 0.004]
        bend = [side * temple_x, hinge[1] + 0.022, eye[2] + 0.005]
        ear = [side * (temple_x + 0.003), EAR_Y, eye[2] + 0.008]
        meshes.append(tube(np.array([hinge, bend, ear]), radius, closed=False))
    inner = abs(meshes[0].vertices[:, 0]).min()
    bridge_x = np.linspace(-inner, inner, 9)
    arch = 0.004 * (1.0 - (bridge_x / inner) ** 2)
    bridge_z = eyes[:, 2].mean() + 0.001 + arch
    bridge = np.stack([bridge_x, plane + WRAP * bridge_x**2, bridge_z], axis=1)
    meshes.append(tube(bridge, radius, closed=False))
    return [Mesh(head.world(m.vertices), m.faces) for m in meshes]


def frame_color(sitting: Sitting) -> np.ndarray:
    """Reflectance [3] of the frame."""
    return np.array(FRAME_COLORS[sitting.seed // 7 % len(FRAME_COLORS)])
