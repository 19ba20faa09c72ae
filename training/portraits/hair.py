"""Hair and beards: a cap over the scalp and ribbons that grow from it.

A ribbon (a "hair card") is a lock some millimetres wide. It starts at a random place of the scalp
in a direction given by the haircut, is drawn down by gravity, keeps a distance from the skin, and
is kept out of the face. The cap below closes the view to the scalp.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .geometry import HeadModel, HeadPose, Mesh, ramp, unit
from .people import Identity, Sitting
from .skin import smooth_noise
from .surfaces import cut, ribbons

# The hair line seen from the side: height z over depth y (m, average head, eyes at 0).
HAIRLINE_Y = (-0.030, 0.000, 0.020, 0.035, 0.050, 0.060, 0.070, 0.090, 0.102, 0.118, 0.170)
HAIRLINE_Z = (0.071, 0.066, 0.058, 0.040, 0.004, -0.012, 0.014, 0.014, -0.035, -0.080, -0.090)
FACE_HALF_WIDTH = 0.064  # hair that should leave the face free keeps this far from the middle
HOLD = {"gather": 0.9, "part": 0.25, "back": 0.5, "forward": 0.35, "out": 0.0}  # to the skin
BEARD_ROOTS = 700
STEPS = 14


@dataclass(frozen=True)
class Cut:
    """A haircut. Lengths in metres; `flow` names the direction in which the hair is combed."""

    flow: str
    cap: float  # thickness of the cap
    volume: float  # the locks lie up to this far above the cap
    length: float  # of a lock; 0: down to the height `hem`
    hem: float = 0.0
    side_length: float = 0.0  # of the locks on the sides, 0: like the others
    count: int = 1300
    width: float = 0.0055
    gravity: float = 0.25
    lift: float = 0.4
    curl: float = 0.0  # radius of the curls
    curl_length: float = 0.05  # m per turn
    disorder: float = 0.15
    fringe: float = 0.0  # chance that the front hair falls onto the forehead


CUTS: dict[str, Cut] = {
    "buzz": Cut("forward", 0.0030, 0.001, 0.006, count=900, width=0.0035, disorder=0.6),
    "crop": Cut("forward", 0.0080, 0.009, 0.034, side_length=0.014, disorder=0.28, lift=0.5,
                width=0.0070),
    "swept": Cut("back", 0.0100, 0.014, 0.075, side_length=0.020, gravity=0.08, lift=0.35,
                 width=0.0070),
    "parted": Cut("part", 0.0090, 0.012, 0.085, side_length=0.025, gravity=0.22, lift=0.5,
                  width=0.0070),
    "curly": Cut("out", 0.0110, 0.014, 0.070, curl=0.008, curl_length=0.035, disorder=0.6,
                 side_length=0.05, width=0.0060, gravity=0.25),
    "afro": Cut("out", 0.0200, 0.012, 0.034, curl=0.006, curl_length=0.022, disorder=0.6,
                count=1900, width=0.0065, gravity=0.0, lift=2.0),
    "bob": Cut("part", 0.0090, 0.012, 0.0, hem=-0.095, count=1500, lift=0.25, gravity=0.35,
               fringe=0.45, width=0.0070),
    "waves": Cut("part", 0.0100, 0.013, 0.0, hem=-0.115, count=1500, lift=0.3, gravity=0.35,
                 curl=0.008, curl_length=0.075, fringe=0.2, width=0.0070),
    "bun": Cut("gather", 0.0050, 0.004, 0.16, count=1100, gravity=0.0, lift=0.1, disorder=0.05,
               width=0.0070),
    "straight": Cut("part", 0.0090, 0.010, 0.0, hem=-0.27, count=1800, lift=0.15, gravity=0.50,
                    fringe=0.35, disorder=0.10, width=0.0070),
    "wavy": Cut("part", 0.0100, 0.013, 0.0, hem=-0.25, count=1800, lift=0.2, gravity=0.45,
                curl=0.009, curl_length=0.085, fringe=0.15, width=0.0070),
    "locks": Cut("part", 0.0090, 0.016, 0.0, hem=-0.20, count=520, width=0.0100, curl=0.003,
                 curl_length=0.03, disorder=0.3),
}  # fmt: skip


@dataclass(frozen=True)
class Hair:
    """Cap and locks with colours and unit normals per vertex; None where there is none."""

    mesh: Mesh
    colour: np.ndarray
    normals: np.ndarray


@dataclass(frozen=True)
class Head:
    """The posed head on which things grow or sit."""

    model: HeadModel
    skin: Mesh
    pose: HeadPose
    eyes: np.ndarray  # middle between the eyes of the unturned head [3]

    @property
    def place(self) -> np.ndarray:
        """Places on the average person of the vertices that `raised` uses."""
        return self.model.place[: self.model.coarse_count]

    def raised(self, lift: np.ndarray | float) -> Mesh:
        """The coarser skin, moved outwards by `lift` (m, one number or one per vertex)."""
        count = self.model.coarse_count
        lift = np.broadcast_to(np.asarray(lift, float), (count,))[:, None]
        vertices = self.skin.vertices[:count] + lift * self.skin.normals[:count]
        return Mesh(vertices, self.model.coarse_faces)

    def local(self, points: np.ndarray) -> np.ndarray:
        """World points -> unturned head, relative to the middle between the eyes."""
        return self.pose.undo(points) - self.eyes

    def world(self, points: np.ndarray) -> np.ndarray:
        return self.pose.apply(points + self.eyes)


class Collider:
    """Distance above the skin, by its nearest vertex."""

    def __init__(self, head: Head) -> None:
        # The first vertices of the fine mesh are those of the first subdivision.
        count = head.model.coarse_count
        keep = (head.model.mouth_inside[:count] < 0.3) & (head.model.lids[:count] < 0.5)
        self.points = head.skin.vertices[:count][keep]
        self.normals = head.skin.normals[:count][keep]
        self.tree = cKDTree(self.points)

    def lift(self, points: np.ndarray, clearance: np.ndarray, hold: float) -> tuple:
        """Points pushed out to `clearance` [n] (and drawn to it by `hold`), nearest normals."""
        _, nearest = self.tree.query(points)
        normal = self.normals[nearest]
        height = np.einsum("nk,nk->n", points - self.points[nearest], normal)
        short = clearance - height
        move = np.maximum(short, 0.0) + hold * np.minimum(short, 0.0)
        return points + move[:, None] * normal, normal


def hairline(model: HeadModel, receding: float) -> np.ndarray:
    """Signed height above the hair line [n]: positive where hair grows."""
    x, y, z = model.place.T
    distance = np.abs(x)
    line = np.interp(y, HAIRLINE_Y, HAIRLINE_Z)
    front = ramp(y, 0.06, 0.02)
    line = line - 0.10 * np.maximum(distance - 0.03, 0.0) * front
    temple = np.exp(-(((distance - 0.042) / 0.018) ** 2))
    line = line + front * receding * (0.010 + 0.026 * temple)
    ear = (distance > 0.0755) & (z < 0.015) & (y > 0.045) & (y < 0.105)
    return np.where(ear, -0.05, z - line)


def _roots(rng: np.random.Generator, mesh: Mesh, weight: np.ndarray, count: int) -> tuple:
    """Random vertices-and-offsets of the surface: triangle numbers and barycentric weights."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chance = area * weight[mesh.faces].mean(1)
    if chance.sum() <= 0.0:
        return np.zeros(0, int), np.zeros((0, 3))
    chosen = rng.choice(len(chance), count, p=chance / chance.sum())
    u, v = rng.uniform(size=(2, count))
    flip = u + v > 1.0
    u, v = np.where(flip, 1.0 - u, u), np.where(flip, 1.0 - v, v)
    return chosen, np.stack([1.0 - u - v, u, v], axis=1)


def _at(values: np.ndarray, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.einsum("nk,nk...->n...", weights, values[faces])


def _grow(
    head: Head,
    collider: Collider,
    start: np.ndarray,
    direction: np.ndarray,
    length: np.ndarray,
    clearance: np.ndarray,
    gravity: float,
    hold: float,
    free_face: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Paths [n, STEPS, 3] and the skin's normals beside them."""
    point, along = start, direction
    paths, normals = [start], []
    step = (length / (STEPS - 1))[:, None]
    for _ in range(STEPS - 1):
        local = head.local(point)
        # On the shoulders the hair slides forward or back instead of piling up.
        slide = ramp(local[:, 2], -0.09, -0.13) * np.where(local[:, 1] < 0.065, -0.5, 0.5)
        pull = np.stack([np.zeros(len(slide)), slide, np.full(len(slide), -gravity)], axis=1)
        target, normal = collider.lift(point + step * unit(along + pull), clearance, hold)
        local = head.local(target)
        below = ramp(local[:, 2], 0.074, 0.050) * ramp(local[:, 1], 0.055, 0.035) * free_face
        wanted = below * (FACE_HALF_WIDTH + 0.4 * clearance)
        side = np.where(local[:, 0] < 0.0, -1.0, 1.0)
        local[:, 0] += side * np.maximum(wanted - np.abs(local[:, 0]), 0.0)
        target = head.world(local)
        along = unit(target - point)
        point = target
        paths.append(point)
        normals.append(normal)
    normals.insert(0, normals[0])
    return np.stack(paths, axis=1), np.stack(normals, axis=1)


def _flow(cut_: Cut, place: np.ndarray, part: float, anchor: np.ndarray) -> np.ndarray:
    """Combing direction in the unturned head [n, 3] for roots at `place`."""
    x, y, z = place.T
    side = np.where(x < part, -1.0, 1.0)
    zero = np.zeros_like(x)
    if cut_.flow == "forward":
        return np.stack([0.35 * x / 0.07, -1.0 + zero, -0.35 - 6.0 * np.maximum(0.04 - z, 0.0)], 1)
    if cut_.flow == "back":
        return np.stack([2.5 * x, 1.0 + zero, 0.15 - 4.0 * np.maximum(0.06 - z, 0.0)], 1)
    if cut_.flow == "out":
        return unit(place - [0.0, 0.075, 0.02]) + [0.0, 0.0, 0.1]
    if cut_.flow == "gather":
        return anchor - place
    back = 0.35 + 0.5 * ramp(y, 0.08, 0.14)
    down = -0.1 - 0.8 * ramp(z, 0.05, 0.0)
    return np.stack([side * (1.0 - 0.5 * ramp(y, 0.10, 0.16)), back, down], axis=1)


def _shade(rng: np.random.Generator, person: Identity, count: int) -> np.ndarray:
    """Colours along the locks [count, STEPS, 3]: each a little different, darker at the root."""
    each = rng.uniform(0.72, 1.28, (count, 1, 1))
    along = np.linspace(0.80, 1.10, STEPS)[None, :, None]
    tint = 1.0 + rng.normal(0.0, 0.04, (count, 1, 3))
    return np.clip(np.array(person.hair) * each * along * tint, 0.003, 0.85)


def _ribbon_mesh(
    rng: np.random.Generator,
    paths: np.ndarray,
    normals: np.ndarray,
    width: float,
    colour: np.ndarray,
) -> Hair:
    tangent = unit(np.gradient(paths, axis=1))
    across = unit(np.cross(tangent, normals))
    twist = rng.normal(0.0, 0.35, (len(paths), 1, 1))
    facing = unit(np.cross(across, tangent))
    across = unit(across * np.cos(twist) + facing * np.sin(twist))
    facing = unit(np.cross(across, tangent))
    facing *= np.sign(np.einsum("nsk,nsk->ns", facing, normals))[..., None] + 1e-9
    along = np.linspace(0.0, 1.0, paths.shape[1])
    profile = (0.65 + 0.35 * ramp(along, 0.0, 0.2)) * (1.0 - 0.75 * along**3)
    widths = width * profile * rng.uniform(0.7, 1.3, (len(paths), 1))
    mesh = ribbons(paths, across, widths)
    bent = np.stack([facing - 0.45 * across, facing + 0.45 * across], axis=2)
    return Hair(
        mesh, np.repeat(colour[:, :, None], 2, axis=2).reshape(-1, 3), unit(bent).reshape(-1, 3)
    )


def grow_hair(head: Head, person: Identity, sitting: Sitting) -> list[Hair]:
    """Cap and locks of the haircut; empty for a bald head."""
    if sitting.haircut == "bald":
        return []
    cut_ = CUTS[sitting.haircut]
    rng = np.random.default_rng(sitting.hair_seed)
    volume = rng.uniform(0.7, 1.4) if sitting.hat == "none" else 0.35
    field = hairline(head.model, person.receding)
    field = field + 0.002 * smooth_noise(head.model.place, 0.012, sitting.hair_seed)
    cap_height = cut_.cap * (1.0 if sitting.hat == "none" else min(1.0, 0.006 / cut_.cap))
    cap = _cap(head, person, sitting, field, cap_height * (0.6 + 0.4 * volume))
    parts = [cap]
    collider = Collider(head)
    part = float(rng.choice([-0.028, 0.0, 0.028]))
    anchor = np.array([0.0, 0.15, 0.10]) if rng.uniform() < 0.6 else np.array([0.0, 0.19, 0.01])
    chosen, weights = _roots(rng, head.skin, (field > 0.0005).astype(float), cut_.count)
    faces = head.skin.faces[chosen]
    place = _at(head.model.place, faces, weights)
    start, normal = _at(head.skin.vertices, faces, weights), _at(head.skin.normals, faces, weights)
    above = rng.uniform(0.0, 1.0, len(start)) ** 0.7 * cut_.volume * volume
    edge = ramp(_at(field, faces, weights), 0.0, 0.02)
    clearance = 0.001 + cap_height * (0.6 + 0.4 * volume) * edge + above * (0.3 + 0.7 * edge)
    flow = _flow(cut_, place, part, anchor) + rng.normal(0.0, cut_.disorder, place.shape)
    free_face = np.ones(len(start))
    length = _lengths(rng, cut_, place)
    if cut_.flow == "gather":
        length = np.linalg.norm(anchor - place, axis=1) * 1.15
    if rng.uniform() < cut_.fringe:
        front = (place[:, 1] < 0.02) & (place[:, 2] > 0.05) & (np.abs(place[:, 0]) < 0.055)
        count = int(front.sum())
        flow[front] = rng.normal([0.0, -0.6, -1.0], 0.06, (count, 3))
        flow[front, 0] += 0.5 * (place[front, 0] - part)
        above_brows = place[front, 2] - float(rng.uniform(0.024, 0.040))
        length[front] = np.maximum(above_brows, 0.01) * rng.uniform(0.85, 1.2, count)
        free_face[front] = 0.0
    direction = unit(unit(flow) @ head.pose.rotation.T + cut_.lift * normal)
    start = start + normal * 0.3 * clearance[:, None]
    hold = HOLD[cut_.flow]
    paths, normals = _grow(
        head, collider, start, direction, length, clearance, cut_.gravity, hold, free_face
    )
    if cut_.curl:
        paths = _curl(rng, cut_, paths, normals, length)
    parts.append(_ribbon_mesh(rng, paths, normals, cut_.width, _shade(rng, person, len(paths))))
    if cut_.flow == "gather":
        parts.append(_bun(rng, head, person, anchor))
    return parts


def _lengths(rng: np.random.Generator, cut_: Cut, place: np.ndarray) -> np.ndarray:
    if cut_.length == 0.0:
        inward = np.maximum(0.085 - np.abs(place[:, 0]), 0.0)
        length = place[:, 2] - cut_.hem + 0.55 * inward
        return np.maximum(length, 0.02) * rng.uniform(0.92, 1.06, len(place))
    length = np.full(len(place), cut_.length)
    if cut_.side_length:
        top = ramp(place[:, 2], 0.03, 0.075)
        length = cut_.side_length + (cut_.length - cut_.side_length) * top
    return length * rng.uniform(0.75, 1.2, len(place))


def _curl(
    rng: np.random.Generator, cut_: Cut, paths: np.ndarray, normals: np.ndarray, length: np.ndarray
) -> np.ndarray:
    """Locks wound around their paths. Neighbours share a phase, so that waves show."""
    along = np.linspace(0.0, 1.0, STEPS)[None] * length[:, None]
    phase = rng.normal(0.0, 0.7, (len(paths), 1)) + 40.0 * paths[:, :1, 1]
    turn = phase + 2.0 * np.pi * along / cut_.curl_length
    across = unit(np.cross(unit(np.gradient(paths, axis=1)), normals))
    amount = cut_.curl * ramp(along, 0.01, 0.05)
    sideways = (amount * np.cos(turn))[..., None] * across
    outwards = (amount * (0.5 + 0.5 * np.sin(turn)))[..., None] * normals
    return paths + sideways + outwards


def _cap(head: Head, person: Identity, sitting: Sitting, field: np.ndarray, height: float) -> Hair:
    place = head.place
    field = field[: len(place)]
    bumps = 1.0 + 0.22 * smooth_noise(place, 0.020, sitting.hair_seed + 1)
    lift = 0.0006 + height * ramp(field, 0.0, 0.022) * np.clip(bumps, 0.4, 1.6)
    raised = head.raised(lift)
    strands = np.sin(900.0 * np.arctan2(place[:, 0], place[:, 1] + 0.02) * 0.12)
    shade = 0.62 + 0.16 * strands + 0.10 * smooth_noise(place, 0.006, sitting.hair_seed + 2, 24)
    mesh, (shade, normals) = cut(raised, field, shade, raised.normals)
    colour = np.array(person.hair) * np.clip(shade, 0.3, 1.0)[:, None]
    return Hair(mesh, np.maximum(colour, 0.002), unit(normals))


def _bun(rng: np.random.Generator, head: Head, person: Identity, anchor: np.ndarray) -> Hair:
    """A knot of hair at `anchor`: locks wound around a ball."""
    radius = float(rng.uniform(0.030, 0.042))
    count = 260
    axis = unit(rng.normal(size=(count, 3)))
    helper = unit(np.cross(axis, [0.3, 0.5, 0.81]))
    other = np.cross(axis, helper)
    angle = np.linspace(0.0, 2.4, STEPS)[None, :, None] + rng.uniform(0, 6.28, (count, 1, 1))
    around = np.cos(angle) * helper[:, None] + np.sin(angle) * other[:, None]
    size = radius * rng.uniform(0.75, 1.05, (count, 1, 1))
    paths = head.world(anchor + around * size)
    return _ribbon_mesh(
        rng, paths, around @ head.pose.rotation.T, 0.008, _shade(rng, person, count)
    )


# Length (m) of a beard's hair and how far it hangs down.
BEARD_LENGTHS = {"moustache": 0.011, "goatee": 0.014, "short": 0.009, "full": 0.026}


def grow_beard(head: Head, person: Identity, sitting: Sitting, weight: np.ndarray) -> list[Hair]:
    """The beard's hair; stubble is painted on the skin alone."""
    if sitting.beard not in BEARD_LENGTHS:
        return []
    rng = np.random.default_rng(sitting.hair_seed + 3)
    chosen, weights = _roots(rng, head.skin, weight * (weight > 0.3), BEARD_ROOTS)
    if not len(chosen):
        return []
    faces = head.skin.faces[chosen]
    place = _at(head.model.place, faces, weights)
    start, normal = _at(head.skin.vertices, faces, weights), _at(head.skin.normals, faces, weights)
    upper = place[:, 2] > -0.072
    down = np.stack(
        [
            np.where(upper, 14.0, -4.0) * place[:, 0],
            np.full(len(place), -0.2),
            np.full(len(place), -1.0),
        ],
        axis=1,
    ) + rng.normal(0.0, 0.25, place.shape)
    direction = unit(unit(down) @ head.pose.rotation.T + 0.5 * normal)
    longer = 1.0 + (0.6 * ramp(place[:, 2], -0.08, -0.11) if sitting.beard == "full" else 0.0)
    length = BEARD_LENGTHS[sitting.beard] * longer * rng.uniform(0.7, 1.2, len(place))
    length = np.where(upper, np.minimum(length, 0.009), length)
    along = np.linspace(0.0, 1.0, STEPS)[None, :, None] * length[:, None, None]
    paths = (start + 0.0005 * normal)[:, None] + along * direction[:, None]
    paths[..., 2] -= 6.0 * along[..., 0] ** 2
    normals = np.broadcast_to(normal[:, None], paths.shape)
    return [_ribbon_mesh(rng, paths, normals, 0.0035, _shade(rng, person, len(paths)))]
