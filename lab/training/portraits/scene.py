"""From a person and a sitting to the parts of a scene, its camera and its landmarks.

Lengths are metres, places those of the average person relative to the eyes (see `head`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .beards import grow_beard
from .clothing import covered, dress
from .glasses import frame_color, glasses
from .hair import grow_hair, hairline
from .hats import hat, under_hat
from .head import Head, HeadModel
from .meshes import Mesh, Surface
from .people import Identity, Sitting
from .skin import FacePaint, eyeball, lashes, paint_eye, paint_face
from .subdivision import split_quads

__all__ = ["CLASS", "CLASSES", "Camera", "Part", "Portrait", "build"]

# What a pixel of the mask may show, by number.
CLASSES = (
    "background", "skin", "lips", "brows", "eyes", "hair", "clothing", "beard", "glasses", "hat",
)  # fmt: skip
CLASS = {name: number for number, name in enumerate(CLASSES)}
BROW_LABEL, LIP_LABEL, BEARD_LABEL = 0.45, 0.50, 0.45  # from these weights on a face is labeled
FRAME_HEIGHT = 0.365  # m shown at the distance of the face
CAMERA_DISTANCE = 1.6  # m, that of a portrait lens
AIM = np.array([0.0, 0.06, -0.024])  # center of the picture from the middle between the eyes
NOSE_AND_MOUTH = (30, 48, 54)  # of the 68 points: the nose's tip and the mouth's corners
LASH_LENGTH = {"woman": 0.55, "man": 0.25}  # of MakeHuman's
LASH_COLOR = np.full(3, 0.01)
MOUTH_TOP = -0.052  # z; the mask of the mouth's inside holds the nostrils too
HIDDEN_MARGIN = 0.012  # m behind the edge of hair or clothing the skin is left out
BACK_Y, BACK_Z = 0.13, -0.10  # the back below the head is never seen
TEETH = np.array([0.72, 0.68, 0.60])
INNER_SCALE, INNER_BACK = 0.86, 0.006  # teeth and tongue stay behind every shape of lips (m)
TONGUE = np.array([0.36, 0.10, 0.10])


@dataclass(frozen=True, eq=False)
class Part:
    """One mesh of the scene.

    Args:
        name: different from those of the other parts.
        mesh: n vertices and m triangles, in the world.
        normals: unit vectors [n, 3].
        color: linear reflectances [n, 3].
        material: one of `rendering.MATERIALS`.
        labels: class of each triangle [m].
    """

    name: str
    mesh: Mesh
    normals: np.ndarray
    color: np.ndarray
    material: str
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera with a square picture: from `origin` [3] to `target` [3].

    `fov` is the angle from the picture's left to its right edge in degrees.
    """

    origin: np.ndarray
    target: np.ndarray
    fov: float

    def frame_height(self) -> float:
        """Height of the picture in metres at the distance of the face."""
        distance = float(np.linalg.norm(self.target - self.origin))
        return 2.0 * distance * float(np.tan(np.radians(self.fov / 2.0)))

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points [n, 3] -> picture coordinates [n, 2], 0 to 1, from the top left corner."""
        forward = (self.target - self.origin) / np.linalg.norm(self.target - self.origin)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        up = np.cross(right, forward)
        offset = points - self.origin
        scale = 0.5 / np.tan(np.radians(self.fov / 2.0)) / (offset @ forward)
        return np.stack([0.5 + scale * (offset @ right), 0.5 - scale * (offset @ up)], axis=1)


@dataclass(frozen=True, eq=False)
class Portrait:
    """Everything that is rendered, and the fixed points of the face in the picture.

    Args:
        parts: the parts of the scene.
        camera: that looks at it.
        eyes: middle between the eyes in the world [3].
        points68: iBUG's points [68, 2] in the picture, 0 to 1 from its top left corner.
        points5: the same [5, 2] of the right and the left eye, the tip of the nose, the right and
            the left corner of the mouth. The portrait's right is the left of the picture.
    """

    parts: list[Part]
    camera: Camera
    eyes: np.ndarray
    points68: np.ndarray
    points5: np.ndarray


def build(model: HeadModel, person: Identity, sitting: Sitting) -> Portrait:
    """All meshes of the portrait, its camera and its landmarks."""
    rest = model.shaped(person.phenotype, person.shape, sitting.units)
    eyes_at_rest = model.eye_centers(rest)
    # A rotation vector: pitch about x, roll about y, yaw about z.
    base, pose = model.turn(rest, np.array([sitting.pitch, sitting.roll, sitting.yaw]))
    skin = Mesh(model.subdivide(base), model.faces)
    head = Head(model, skin, pose, eyes_at_rest.mean(0))
    points = skin.vertices[model.landmarks]
    skin_part, paint = _skin_part(head, person, sitting)
    parts = [
        skin_part,
        *_eye_parts(head, base, person, sitting),
        *_mouth_parts(head, base, sitting),
        *_hair_parts(head, person, sitting),
        *_parts("beard", grow_beard(head, sitting, paint.beard), "hair", "beard"),
        *_parts("cloth", dress(head, sitting), "cloth", "clothing"),
        *_glasses_parts(head, sitting, eyes_at_rest, points),
    ]
    camera = _camera(head.eyes, sitting)
    eyes = pose.apply(eyes_at_rest)
    five = np.concatenate([eyes, points[list(NOSE_AND_MOUTH)]])
    return Portrait(parts, camera, eyes.mean(0), camera.project(points), camera.project(five))


def _parts(name: str, surfaces: Sequence[Surface], material: str, label: str) -> list[Part]:
    return [
        Part(
            f"{name}_{number}",
            surface.mesh,
            surface.normals,
            surface.color,
            material,
            np.full(len(surface.mesh.faces), CLASS[label]),
        )
        for number, surface in enumerate(surfaces)
    ]


def _plain(name: str, mesh: Mesh, color: np.ndarray, material: str, label: str) -> Part:
    """A part of one color [3]."""
    labels = np.full(len(mesh.faces), CLASS[label])
    colors = np.tile(color, (len(mesh.vertices), 1))
    return Part(name, mesh, mesh.normals, colors, material, labels)


def _helper(model: HeadModel, base: np.ndarray, group: str) -> Mesh:
    """One of MakeHuman's helper meshes: lashes, teeth, the tongue."""
    used, quads = np.unique(model.groups["helper-" + group], return_inverse=True)
    return Mesh(base[used], split_quads(quads.reshape(-1, 4)))


def _direction(sitting: Sitting, rotation: np.ndarray) -> np.ndarray:
    """Return the direction in which the eyes look.

    It is between the head's front and the camera, plus the drawn deviation.
    """
    sideways, upward = sitting.gaze
    look = np.array([sideways - 0.5 * sitting.yaw + 0.5 * sitting.camera_yaw, -1.0, upward])
    look = rotation @ (look / np.linalg.norm(look))
    return look / np.linalg.norm(look)


def _visible(model: HeadModel, person: Identity, sitting: Sitting) -> np.ndarray:
    """The triangles of the skin that no other part of the scene is sure to hide [m]."""
    x, y, z = model.place.T
    hidden = covered(sitting.garment, model.place) > HIDDEN_MARGIN
    hidden |= (y > BACK_Y) & (z < BACK_Z)
    if sitting.haircut != "bald":
        hidden |= hairline(model, person.receding) > HIDDEN_MARGIN
    return ~hidden[model.faces].all(1)


def _skin_part(head: Head, person: Identity, sitting: Sitting) -> tuple[Part, FacePaint]:
    """The visible skin with its classes, and how all of it is painted."""
    model = head.model
    paint = paint_face(model, person, sitting)
    faces = model.faces
    labels = np.full(len(faces), CLASS["skin"])
    labels[paint.beard[faces].mean(1) > BEARD_LABEL] = CLASS["beard"]
    mouth = model.mouth_inside * (model.place[:, 2] < MOUTH_TOP)
    lips = np.maximum(paint.lips, mouth)
    labels[lips[faces].mean(1) > LIP_LABEL] = CLASS["lips"]
    labels[paint.brows[faces].mean(1) > BROW_LABEL] = CLASS["brows"]
    visible = _visible(model, person, sitting)
    used, kept = np.unique(faces[visible], return_inverse=True)
    mesh = Mesh(head.skin.vertices[used], kept.reshape(-1, 3))
    part = Part("skin", mesh, head.skin.normals[used], paint.color[used], "skin", labels[visible])
    return part, paint


def _eye_parts(head: Head, base: np.ndarray, person: Identity, sitting: Sitting) -> list[Part]:
    """Eyeballs and upper lashes."""
    model = head.model
    gaze = _direction(sitting, head.pose.rotation)
    lid_skin = np.flatnonzero(model.lids > 0.3)
    parts = []
    for side in "rl":
        shell = base[np.unique(model.groups[f"helper-{side}-eye"])]
        upright = head.pose.undo(shell)
        center = head.pose.apply((upright.min(0) + upright.max(0)) / 2)
        radius = float(np.median(np.linalg.norm(shell - center, axis=1)))
        ball, along = eyeball(center, radius, gaze)
        labels = np.full(len(ball.faces), CLASS["eyes"])
        color = paint_eye(along, person)
        parts.append(Part(f"eye_{side}", ball, ball.normals, color, "eye", labels))
        upper = _helper(model, base, f"{side}-eyelashes-2")
        between = upper.vertices[:, None] - head.skin.vertices[lid_skin][None]
        nearest = lid_skin[np.linalg.norm(between, axis=2).argmin(1)]
        short = lashes(upper, head.skin, LASH_LENGTH[person.gender], nearest)
        parts.append(_plain(f"lash_{side}", short, LASH_COLOR, "cloth", "eyes"))
    return parts


def _mouth_parts(head: Head, base: np.ndarray, sitting: Sitting) -> list[Part]:
    """Teeth and tongue of an open mouth; behind closed lips some shapes would let them through."""
    if sitting.units.get("jawOpen", 0.0) == 0.0:
        return []
    parts = []
    for group, color, material in (
        ("upper-teeth", TEETH, "eye"),
        ("lower-teeth", TEETH, "eye"),
        ("tongue", TONGUE, "skin"),
    ):
        mesh = _helper(head.model, base, group)
        middle = mesh.vertices.mean(0)
        inner = middle + INNER_SCALE * (mesh.vertices - middle)
        inner = inner + INNER_BACK * head.pose.rotation[:, 1]
        parts.append(_plain(group, Mesh(inner, mesh.faces), color, material, "lips"))
    return parts


def _hair_parts(head: Head, person: Identity, sitting: Sitting) -> list[Part]:
    """Make the meshes of hat and hair."""
    hair, hats = grow_hair(head, person, sitting), []
    if sitting.hat != "none":
        hair, hats = [under_hat(head, surface) for surface in hair], hat(head, sitting)
    hair = [surface for surface in hair if len(surface.mesh.faces)]
    return _parts("hat", hats, "cloth", "hat") + _parts("hair", hair, "hair", "hair")


def _glasses_parts(
    head: Head, sitting: Sitting, eyes_at_rest: np.ndarray, points: np.ndarray
) -> list[Part]:
    """The frame, placed by the eyes [2, 3] and the 68 points [68, 3] of the turned head."""
    if sitting.glasses == "none":
        return []
    frame = glasses(head, sitting, eyes_at_rest - head.eyes, head.local(points))
    color = frame_color(sitting)
    return [
        _plain(f"glasses_{number}", mesh, color, "gloss", "glasses")
        for number, mesh in enumerate(frame)
    ]


def _camera(eyes: np.ndarray, sitting: Sitting) -> Camera:
    """The camera before a person whose eyes are here [3] when the head is not turned."""
    sideways, upward = sitting.shift
    target = eyes + AIM + np.array([sideways, 0.0, upward])
    angle = sitting.camera_yaw
    away = CAMERA_DISTANCE * np.array([np.sin(angle), -np.cos(angle), 0.0])
    origin = target + away + np.array([0.0, 0.0, sitting.camera_lift])
    fov = 2.0 * np.degrees(np.arctan(0.5 * FRAME_HEIGHT / sitting.zoom / CAMERA_DISTANCE))
    return Camera(origin, target, float(fov))
