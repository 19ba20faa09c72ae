"""Colors of the skin, the lips, the brows and the eyes, at the vertices of their meshes."""

from dataclasses import dataclass

import numpy as np

from .beards import beard_weight
from .head import HeadModel
from .landmarks import brow_height
from .meshes import Mesh, ramp, smooth_noise
from .people import Identity, Sitting
from .surfaces import sphere

__all__ = ["FacePaint", "eyeball", "lashes", "paint_eye", "paint_face"]

# Places on the average face (m from the middle between the eyes).
NOSTRIL_Z = -0.042
CHEEK = (0.042, -0.045)
LIP_EDGE = (0.30, 0.60)  # of the lip mask, soft edge
PUPIL_COSINE = 0.972  # angles from the gaze on the eyeball, seen from its center
IRIS_COSINE = 0.885
LIMBUS_COSINE = 0.905
MOUTH_INSIDE = np.array([0.13, 0.03, 0.03])
SCLERA = np.array([0.58, 0.55, 0.53])


@dataclass(frozen=True, eq=False)
class FacePaint:
    """Colors [n, 3] of the fine skin, and how much it is brow, lip and beard [n], 0 to 1."""

    color: np.ndarray
    brows: np.ndarray
    lips: np.ndarray
    beard: np.ndarray


def _mix(color: np.ndarray, weight: np.ndarray, other: np.ndarray) -> np.ndarray:
    weight = np.clip(weight, 0.0, 1.0)[:, None]
    return color * (1.0 - weight) + other * weight


def _brow_weight(model: HeadModel, person: Identity) -> np.ndarray:
    """Return how much each vertex belongs to a brow [n]."""
    x, y, z = model.place.T
    distance = np.abs(x)
    middle = brow_height(x, person.brow_arch) + person.brow_lift
    taper = 1.0 - 0.55 * ramp(distance, 0.028, person.brow_reach)
    profile = np.exp(-(((z - middle) / (0.0037 * person.brow_thickness * taper)) ** 2) * 0.9)
    ends = ramp(distance, 0.007, 0.013) * ramp(
        distance, person.brow_reach + 0.002, person.brow_reach - 0.006
    )
    return profile * ends * ramp(y, 0.035, 0.015)


def paint_face(model: HeadModel, person: Identity, sitting: Sitting) -> FacePaint:
    """The colors of this person's skin in this picture."""
    x, y, z = model.place.T
    distance = np.abs(x)
    skin = np.array(person.skin)
    front = ramp(y, 0.05, 0.02)
    color = np.tile(skin, (len(x), 1))
    mottle = smooth_noise(model.place, 0.030, person.marks_seed)
    fine = smooth_noise(model.place, 0.007, person.marks_seed + 1, 24)
    color *= 1.0 + (0.020 * mottle + 0.012 * fine)[:, None]
    red = skin * np.array([1.10, 0.72, 0.70])
    cheek = np.exp(-(((distance - CHEEK[0]) / 0.016) ** 2) - ((z - CHEEK[1]) / 0.015) ** 2)
    nose = np.exp(-((distance / 0.014) ** 2) - ((z - NOSTRIL_Z) / 0.010) ** 2)
    ears = ramp(distance, 0.072, 0.082) * ramp(z, -0.08, -0.06)
    flush = person.flush + 0.25 * (sitting.make_up > 0.0)
    color = _mix(color, flush * front * (0.75 * cheek + 0.55 * nose) + 0.25 * ears, red)
    color = _mix(color, person.freckles * _freckles(model, person), skin * [0.62, 0.48, 0.42])
    if person.gender == "man":
        shadow = 0.16 * beard_weight(model, "full") * (1.0 - 0.7 * (person.hair_name == "blond"))
        color = _mix(color, shadow, skin * [0.62, 0.62, 0.66])
    color = _paint_lids(color, model, person, sitting)
    lips = ramp(model.lips, *LIP_EDGE)
    color = _mix(color, lips, _lip_color(person, sitting))
    color = _mix(color, model.mouth_inside * ramp(model.lips, 0.6, 0.3), MOUTH_INSIDE)
    brows = _brow_weight(model, person)
    hairy = 0.80 + 0.20 * np.sin(2400.0 * (distance - 0.5 * z))
    color = _mix(color, 0.95 * np.minimum(1.3 * brows, 1.0) * hairy, _brow_color(person))
    beard = beard_weight(model, sitting.beard)
    cover = 0.50 if sitting.beard == "stubble" else 0.85
    dots = 0.85 + 0.15 * smooth_noise(model.place, 0.003, person.marks_seed + 2, 24)
    color = _mix(color, cover * beard * dots, np.array(person.hair) * 0.8)
    return FacePaint(np.clip(color, 0.004, 0.92), brows, lips, beard)


def _brow_color(person: Identity) -> np.ndarray:
    """Brows are a little darker than fair hair, and never lighter than the skin."""
    hair = np.array(person.hair) * (0.55 if person.hair_name in ("blond", "grey") else 0.8)
    return np.minimum(hair, np.array(person.skin) * 0.55)


def _freckles(model: HeadModel, person: Identity) -> np.ndarray:
    x, y, z = model.place.T
    spots = smooth_noise(model.place, 0.0045, person.marks_seed + 3, 32)
    zone = np.exp(-((x / 0.05) ** 2) - ((z + 0.035) / 0.022) ** 2) * ramp(y, 0.05, 0.02)
    return ramp(spots, 0.9, 1.6) * zone


def _lip_color(person: Identity, sitting: Sitting) -> np.ndarray:
    skin = np.array(person.skin)
    natural = skin * np.array([1.02, 0.58, 0.60])
    if sitting.make_up == 0.0:
        return natural
    paints = np.array([[0.50, 0.06, 0.08], [0.55, 0.16, 0.20], [0.40, 0.10, 0.12]])
    paint = paints[sitting.seed % len(paints)] * (0.55 + 0.6 * skin[0])
    return natural + (paint - natural) * person.lip_tint * sitting.make_up


def _paint_lids(
    color: np.ndarray, model: HeadModel, person: Identity, sitting: Sitting
) -> np.ndarray:
    x, y, z = model.place.T
    skin = np.array(person.skin)
    eye = np.exp(-(((np.abs(x) - 0.030) / 0.020) ** 2) - ((z - 0.006) / 0.010) ** 2) * ramp(
        y, 0.03, 0.01
    )
    color = _mix(color, 0.22 * eye, skin * [0.72, 0.60, 0.58])
    if sitting.make_up > 0.0:
        shades = np.array([[0.20, 0.10, 0.08], [0.12, 0.10, 0.16], [0.30, 0.14, 0.12]])
        shade = shades[sitting.seed // 3 % len(shades)] * (0.4 + skin[0])
        color = _mix(color, 0.55 * sitting.make_up * eye * ramp(z, 0.002, 0.006), shade)
    corner = ramp(np.abs(x), 0.020, 0.016) * model.lids
    return _mix(color, 0.6 * corner, skin * [1.0, 0.62, 0.60])


def eyeball(center: np.ndarray, radius: float, gaze: np.ndarray) -> tuple[Mesh, np.ndarray]:
    """An eyeball that looks along the unit vector `gaze`; also the cosine to the gaze [n]."""
    ball = sphere(40, 32)
    front = np.array([0.0, -1.0, 0.0])
    axis = np.cross(front, gaze)
    cosine = float(front @ gaze)
    cross = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
    rotation = np.eye(3) + cross + cross @ cross / (1.0 + cosine)
    along = -ball.vertices[:, 1]
    cornea = 1.0 + 0.055 * ramp(along, 0.86, 1.0)
    vertices = center + radius * cornea[:, None] * ball.vertices @ rotation.T
    return Mesh(vertices, ball.faces), along


def paint_eye(along: np.ndarray, person: Identity) -> np.ndarray:
    """Pupil, iris with a dark limbus, and the white of the eye, by the cosine to the gaze."""
    iris = np.array(person.iris)
    color = np.tile(SCLERA, (len(along), 1))
    color = _mix(color, ramp(along, IRIS_COSINE - 0.012, IRIS_COSINE), iris * 0.35)
    color = _mix(color, ramp(along, LIMBUS_COSINE - 0.01, LIMBUS_COSINE + 0.01), iris)
    inner = np.minimum(iris * 1.5, 0.6)
    color = _mix(color, 0.6 * ramp(along, 0.93, 0.965), inner)
    return _mix(color, ramp(along, PUPIL_COSINE - 0.004, PUPIL_COSINE), np.full(3, 0.006))


def lashes(mesh: Mesh, skin: Mesh, length: float, nearest: np.ndarray) -> Mesh:
    """MakeHuman's lashes shortened towards the skin vertices `nearest` [n] by `length`."""
    root = skin.vertices[nearest]
    return Mesh(root + length * (mesh.vertices - root), mesh.faces)
