"""Clothing, glasses and hats. Places are metres on the average person, eyes at the origin."""

from dataclasses import dataclass

import numpy as np

from .geometry import Mesh, ramp, unit, vertex_normals
from .hair import Hair, Head
from .people import CLOTH, Identity, Sitting, jitter
from .skin import smooth_noise
from .surfaces import cut, tube

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
BACK_DEPTH = 0.010
TURTLENECK_TOP = -0.118
CLOTH_LIFT = 0.007
JACKET_LIFT = 0.014
FRAME_COLOURS = (
    (0.015, 0.013, 0.012),
    (0.120, 0.045, 0.018),
    (0.350, 0.260, 0.120),
    (0.220, 0.020, 0.020),
)


@dataclass(frozen=True)
class Garment:
    """A surface with colours and unit normals per vertex."""

    mesh: Mesh
    colour: np.ndarray
    normals: np.ndarray


def covered(kind: str, place: np.ndarray) -> np.ndarray:
    """Metres below the neckline of the garment at places [n, 3]; positive where it covers."""
    x, y, z = place.T
    if kind == "turtleneck":
        return TURTLENECK_TOP - 0.10 * np.maximum(y - 0.02, 0.0) - z
    side, front = NECKLINES[kind]
    in_front = ramp(y, 0.085, 0.045)
    front = front * in_front + BACK_DEPTH * (1.0 - in_front)
    below = NECK_BASE_Z + 0.15 * np.maximum(y - 0.05, 0.0) - z
    if kind in ("vneck", "shirt", "jacket"):
        depth = np.abs(x) / (NECK_BASE_X + side) + below / front
    else:
        outward = np.maximum(np.abs(x) - NECK_BASE_X, 0.0) / side
        depth = np.hypot(outward, np.maximum(below, 0.0) / front) + np.minimum(below, 0.0) / front
    return (depth - 1.0) * front


def _pattern(head: Head, sitting: Sitting, rng: np.random.Generator) -> np.ndarray:
    """Colours of the cloth [n, 3]."""
    x, y, z = head.place.T
    first = np.array(jitter(rng, CLOTH[sitting.cloth_colour], 0.12))
    second = np.array(jitter(rng, CLOTH[sitting.second_colour], 0.12))
    size = float(rng.uniform(0.036, 0.060))
    waves = {
        "plain": np.full_like(x, -1.0),
        "stripes": np.sin(2.0 * np.pi * z / size),
        "columns": np.sin(2.0 * np.pi * x / size),
        "checks": np.sin(2.0 * np.pi * x / size) * np.sin(2.0 * np.pi * z / size),
        "dots": np.cos(2.0 * np.pi * x / size) + np.cos(2.0 * np.pi * z / size) - 1.0,
        "yoke": 200.0 * (z + 0.19 + 0.02 * rng.uniform(-1.0, 1.0)),
    }
    share = np.clip(0.5 + 3.0 * waves[sitting.pattern], 0.0, 1.0)[:, None]
    weave = 1.0 + 0.05 * smooth_noise(head.place, 0.025, sitting.seed)[:, None]
    return np.clip((first * (1.0 - share) + second * share) * weave, 0.005, 0.9)


def _shell(head: Head, field: np.ndarray, lift: np.ndarray | float, colour: np.ndarray) -> Garment:
    raised = head.raised(lift)
    mesh, (colour, normals) = cut(raised, field, colour, raised.normals)
    return Garment(mesh, colour, unit(normals))


def dress(head: Head, sitting: Sitting) -> list[Garment]:
    """The garments over the shoulders."""
    rng = np.random.default_rng(sitting.seed + 1)
    colour = _pattern(head, sitting, rng)
    folds = 0.0018 * smooth_noise(head.place * [1.0, 1.0, 0.35], 0.05, sitting.seed + 2)
    lift = CLOTH_LIFT + np.clip(folds, -0.003, 0.004)
    x, y, z = head.place.T
    kind = sitting.garment
    if kind == "jacket":
        name = "white" if rng.uniform() < 0.6 else sitting.second_colour
        shirt = np.array(jitter(rng, CLOTH[name], 0.1))
        inner = _shell(head, covered("shirt", head.place), 0.005, np.tile(shirt, (len(x), 1)))
        lapel = np.exp(-(((covered("jacket", head.place) - 0.020) / 0.012) ** 2))
        outer = _shell(
            head,
            covered("jacket", head.place),
            JACKET_LIFT + folds + 0.003 * lapel,
            colour * (1.0 - 0.25 * lapel[:, None]),
        )
        return [inner, _collar(head, np.tile(shirt, (len(x), 1))), outer]
    garments = [_shell(head, covered(kind, head.place), lift, colour)]
    if kind == "shirt":
        garments.append(_collar(head, colour * 0.96))
    if kind == "turtleneck":
        roll = np.minimum(covered(kind, head.place), 0.030 - covered(kind, head.place))
        garments.append(_shell(head, roll, 0.011 + 0.002 * np.sin(x * 400.0), colour * 0.95))
    return garments


def _collar(head: Head, colour: np.ndarray) -> Garment:
    """A fold around the neck, open in front."""
    x, y, z = head.place.T
    top = -0.128 - 0.12 * np.maximum(0.06 - y, 0.0)
    bottom = NECK_BASE_Z - 0.020 - 0.25 * np.maximum(0.06 - y, 0.0)
    open_front = np.abs(x) - 0.010 - 0.5 * np.maximum(top - z, 0.0)
    around = np.hypot(x, 0.8 * (y - 0.085)) < 0.115
    field = np.minimum(np.minimum(top - z, z - bottom), np.where(y < 0.07, open_front, 1.0))
    field = np.where(around, field, -0.01)
    lift = 0.008 + 0.014 * ramp(z, top, bottom)
    return _shell(head, field, lift, colour)


def glasses(head: Head, sitting: Sitting, eyes: np.ndarray, points: np.ndarray) -> list[Mesh]:
    """Frames without lenses. `eyes` [2, 3] and the 68 `points` are in the head's own frame."""
    rng = np.random.default_rng(sitting.seed + 5)
    width, height, power = {
        "round": (0.0235, 0.0225, 2.0),
        "oval": (0.0265, 0.0180, 2.2),
        "square": (0.0265, 0.0200, 4.0),
    }[sitting.glasses]
    scale, radius = rng.uniform(0.93, 1.08), float(rng.uniform(0.0014, 0.0024))
    plane = min(points[27:29, 1].min() + 0.003, eyes[:, 1].min() - 0.026)
    angle = np.linspace(0.0, 2.0 * np.pi, 36, endpoint=False)
    cosine, sine = np.cos(angle), np.sin(angle)
    rim_x = width * scale * np.sign(cosine) * np.abs(cosine) ** (2.0 / power)
    rim_z = height * scale * np.sign(sine) * np.abs(sine) ** (2.0 / power)
    temple_x = float(np.abs(points[[0, 16], 0]).max()) + 0.004
    meshes = []
    for side, eye in zip((-1.0, 1.0), eyes, strict=True):
        centre_x = side * max(abs(eye[0]), width * scale + 0.007)
        x = centre_x + rim_x
        rim = np.stack([x, plane + 2.2 * x**2, eye[2] - 0.003 + rim_z], axis=1)
        meshes.append(tube(rim, radius, closed=True))
        hinge_x = side * (abs(centre_x) + width * scale)
        hinge = [hinge_x, plane + 2.2 * hinge_x**2, eye[2] + 0.004]
        bend = [side * temple_x, hinge[1] + 0.022, eye[2] + 0.005]
        ear = [side * (temple_x + 0.003), 0.075, eye[2] + 0.008]
        meshes.append(tube(np.array([hinge, bend, ear]), radius, closed=False))
    inner = abs(meshes[0].vertices[:, 0]).min()
    bridge_x = np.linspace(-inner, inner, 9)
    arch = 0.004 * (1.0 - (bridge_x / inner) ** 2)
    bridge = np.stack([bridge_x, plane + 2.2 * bridge_x**2, eyes[:, 2].mean() + 0.001 + arch], 1)
    meshes.append(tube(bridge, radius, closed=False))
    return [Mesh(head.world(m.vertices), m.faces) for m in meshes]


def frame_colour(sitting: Sitting) -> np.ndarray:
    return np.array(FRAME_COLOURS[sitting.seed // 7 % len(FRAME_COLOURS)])


HAT_FRONT_Z, HAT_SLOPE = 0.056, 0.36  # the lower edge of a hat falls towards the neck
HAT_LIFT = 0.013
RIM_HEIGHT = 0.008


def hat_field(place: np.ndarray) -> np.ndarray:
    """Height above the lower edge of a hat [n]."""
    return place[:, 2] - HAT_FRONT_Z + HAT_SLOPE * (place[:, 1] + 0.02)


def hat(head: Head, sitting: Sitting) -> list[Garment]:
    """The hat and its visor or brim."""
    rng = np.random.default_rng(sitting.seed + 6)
    place = head.place
    base = np.array(jitter(rng, CLOTH[sitting.hat_colour], 0.12))
    field = hat_field(place)
    azimuth = np.arctan2(place[:, 0], place[:, 1] - 0.065)
    ribs = np.sin(azimuth * 46.0)
    if sitting.hat == "beanie":
        shade = 1.0 + 0.12 * ribs * ramp(field, 0.10, 0.06)
        fold = ramp(field, 0.034, 0.030)
        puff = float(rng.uniform(0.0, 0.02)) * ramp(field, 0.06, 0.12)
        lift = HAT_LIFT + 0.005 * fold + puff + 0.0008 * ribs
        colour = base * (shade * (1.0 - 0.1 * fold))[:, None]
        return [_shell(head, field, lift, np.clip(colour, 0.0, 0.9))]
    tall = float(rng.uniform(0.020, 0.035)) if sitting.hat == "brim" else 0.004
    lift = HAT_LIFT + tall * ramp(field, 0.02, 0.09)
    band = ramp(field, 0.026, 0.023) if sitting.hat == "brim" else np.zeros_like(field)
    seams = 1.0 - 0.18 * (np.abs(np.sin(azimuth * 3.0)) < 0.06)
    crown = _shell(head, field, lift, base * (seams * (1.0 - 0.55 * band))[:, None])
    rim, (height,) = cut(head.raised(lift), field, field)
    local = head.local(rim.vertices)[height < RIM_HEIGHT]
    return [crown, _brim(head, sitting, local, base)]


def _brim(head: Head, sitting: Sitting, local: np.ndarray, base: np.ndarray) -> Garment:
    """Visor or brim around the lowest points [n, 3] of the crown, in the head's own frame."""
    middle = np.array([0.0, 0.5 * (local[:, 1].min() + local[:, 1].max())])
    azimuth = np.arctan2(local[:, 0] - middle[0], -(local[:, 1] - middle[1]))
    cap = sitting.hat == "cap"
    angles = np.linspace(-1.05, 1.05, 41) if cap else np.linspace(-np.pi, np.pi, 73)
    reach = 0.058 if cap else 0.050
    radius = np.hypot(local[:, 0] - middle[0], local[:, 1] - middle[1])
    rows = []
    for angle in angles:
        away = np.abs((azimuth - angle + np.pi) % (2.0 * np.pi) - np.pi)
        near = away <= max(0.15, away.min())
        r = radius[near].max() - 0.003
        z = local[near, 2].mean()
        length = reach * (np.sqrt(max(np.cos(angle * 1.45), 0.0)) if cap else 1.0)
        out = np.linspace(0.0, 1.0, 6)
        droop = -0.25 * length * out**1.5 if cap else 0.10 * length * out**2
        rows.append(
            np.stack(
                [
                    middle[0] + np.sin(angle) * (r + length * out),
                    middle[1] - np.cos(angle) * (r + length * out),
                    z + droop,
                ],
                axis=1,
            )
        )
    grid = np.array(rows)
    n, k, _ = grid.shape
    number = np.arange(n * k).reshape(n, k)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    faces = np.concatenate(
        [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)]
    )
    vertices = head.world(grid.reshape(-1, 3))
    normals = vertex_normals(vertices, faces)
    return Garment(Mesh(vertices, faces), np.tile(base * 0.9, (len(vertices), 1)), normals)


def under_hat(head: Head, hair: Hair) -> Hair:
    """The hair that a hat leaves visible."""
    above = hat_field(head.local(hair.mesh.vertices))
    mesh, (colour, normals) = cut(hair.mesh, -above + 0.004, hair.colour, hair.normals)
    return Hair(mesh, colour, normals)


__all__ = ["Garment", "dress", "frame_colour", "glasses", "hat", "under_hat", "Identity"]
