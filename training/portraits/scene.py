"""From a person and a sitting to the parts of a scene, its camera and its landmarks."""

from dataclasses import dataclass

import numpy as np

from .geometry import HeadModel, HeadPose, Mesh, split_quads
from .hair import Hair, Head, grow_beard, grow_hair, hairline
from .people import Identity, Sitting
from .skin import eyeball, lashes, paint_eye, paint_face
from .wardrobe import Garment, covered, dress, frame_colour, glasses, hat, under_hat

CLASSES = (
    "background", "skin", "lips", "brows", "eyes", "hair", "clothing", "beard", "glasses", "hat",
)  # fmt: skip
CLASS = {name: number for number, name in enumerate(CLASSES)}
BROW_LABEL, LIP_LABEL, BEARD_LABEL = 0.45, 0.50, 0.45  # from these weights on a face is labelled
FRAME_HEIGHT = 0.365  # m shown at the distance of the face
CAMERA_DISTANCE = 1.6  # m, that of a portrait lens
AIM = np.array([0.0, 0.06, -0.024])  # centre of the picture from the middle between the eyes
LASH_LENGTH = {"woman": 0.55, "man": 0.25}
MOUTH_TOP = -0.052  # z; the mask of the mouth's inside holds the nostrils too
HIDDEN_MARGIN = 0.012  # m behind the edge of hair or clothing the skin is left out
BACK_Y, BACK_Z = 0.13, -0.10  # the back below the head is never seen
TEETH = np.array([0.72, 0.68, 0.60])
INNER_SCALE, INNER_BACK = 0.86, 0.006  # teeth and tongue stay behind every shape of lips (m)
TONGUE = np.array([0.36, 0.10, 0.10])


@dataclass(frozen=True)
class Part:
    """One mesh of the scene: colours and normals per vertex, material name, class per triangle."""

    name: str
    mesh: Mesh
    normals: np.ndarray
    colour: np.ndarray
    material: str
    labels: np.ndarray


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with a square picture."""

    origin: np.ndarray
    target: np.ndarray
    fov: float  # degrees

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


@dataclass(frozen=True)
class Portrait:
    """Everything that is rendered, and the fixed points of the face in the picture."""

    parts: list[Part]
    camera: Camera
    eyes: np.ndarray  # middle between the eyes in the world [3]
    points68: np.ndarray  # [68, 2] in 0 to 1
    points5: np.ndarray  # right eye, left eye, nose tip, right and left mouth corner


def _part(name: str, surface: Hair | Garment, material: str, label: str) -> Part:
    labels = np.full(len(surface.mesh.faces), CLASS[label])
    return Part(name, surface.mesh, surface.normals, surface.colour, material, labels)


def _plain(name: str, mesh: Mesh, colour: np.ndarray, material: str, label: str) -> Part:
    labels = np.full(len(mesh.faces), CLASS[label])
    colours = np.tile(colour, (len(mesh.vertices), 1))
    return Part(name, mesh, mesh.normals, colours, material, labels)


def _helper(model: HeadModel, base: np.ndarray, group: str) -> Mesh:
    used, quads = np.unique(model.groups["helper-" + group], return_inverse=True)
    return Mesh(base[used], split_quads(quads.reshape(-1, 4)))


def _direction(sitting: Sitting, rotation: np.ndarray) -> np.ndarray:
    """Where the eyes look: between the head's front and the camera, plus the drawn deviation."""
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


def _skin_part(model: HeadModel, head: Head, person: Identity, sitting: Sitting) -> tuple:
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
    part = Part("skin", mesh, head.skin.normals[used], paint.colour[used], "skin", labels[visible])
    return part, paint


def _eye_parts(
    model: HeadModel, head: Head, base: np.ndarray, person: Identity, sitting: Sitting
) -> list[Part]:
    gaze = _direction(sitting, head.pose.rotation)
    parts = []
    lid_skin = np.flatnonzero(model.lids > 0.3)
    for side in "rl":
        shell = base[np.unique(model.groups[f"helper-{side}-eye"])]
        centre = head.pose.apply((head.pose.undo(shell).min(0) + head.pose.undo(shell).max(0)) / 2)
        radius = float(np.median(np.linalg.norm(shell - centre, axis=1)))
        ball, along = eyeball(centre, radius, gaze)
        labels = np.full(len(ball.faces), CLASS["eyes"])
        parts.append(
            Part(f"eye_{side}", ball, ball.normals, paint_eye(along, person), "eye", labels)
        )
        upper = _helper(model, base, f"{side}-eyelashes-2")
        distances = np.linalg.norm(
            upper.vertices[:, None] - head.skin.vertices[lid_skin][None], axis=2
        )
        short = lashes(upper, head.skin, LASH_LENGTH[person.gender], lid_skin[distances.argmin(1)])
        parts.append(_plain(f"lash_{side}", short, np.full(3, 0.01), "cloth", "eyes"))
    return parts


def _mouth_parts(
    model: HeadModel, base: np.ndarray, pose: HeadPose, sitting: Sitting
) -> list[Part]:
    """Teeth and tongue of an open mouth; behind closed lips some shapes would let them through."""
    if sitting.units.get("jawOpen", 0.0) == 0.0:
        return []
    parts = []
    for group, colour, material in (
        ("upper-teeth", TEETH, "eye"),
        ("lower-teeth", TEETH, "eye"),
        ("tongue", TONGUE, "skin"),
    ):
        mesh = _helper(model, base, group)
        middle = mesh.vertices.mean(0)
        inner = middle + INNER_SCALE * (mesh.vertices - middle) + INNER_BACK * pose.rotation[:, 1]
        parts.append(_plain(group, Mesh(inner, mesh.faces), colour, material, "lips"))
    return parts


def build(model: HeadModel, person: Identity, sitting: Sitting) -> Portrait:
    """All meshes of the portrait, its camera and its landmarks."""
    rest = model.pose(person.phenotype, person.shape, sitting.units)
    eyes_at_rest = model.eye_centres(rest)
    rotation = _rotation_vector(sitting)
    base, pose = model.turn(rest, rotation)
    skin = Mesh(model.subdivide(base), model.faces)
    head = Head(model, skin, pose, eyes_at_rest.mean(0))
    skin_part, paint = _skin_part(model, head, person, sitting)
    parts = [skin_part, *_eye_parts(model, head, base, person, sitting)]
    parts += _mouth_parts(model, base, pose, sitting)
    hair = grow_hair(head, person, sitting)
    if sitting.hat != "none":
        hair = [under_hat(head, h) for h in hair]
        hats = enumerate(hat(head, sitting))
        parts += [_part(f"hat_{i}", h, "cloth", "hat") for i, h in hats]
    hair = [h for h in hair if len(h.mesh.faces)]
    parts += [_part(f"hair_{i}", h, "hair", "hair") for i, h in enumerate(hair)]
    beard = grow_beard(head, person, sitting, paint.beard)
    parts += [_part(f"beard_{i}", b, "hair", "beard") for i, b in enumerate(beard)]
    clothes = enumerate(dress(head, sitting))
    parts += [_part(f"cloth_{i}", c, "cloth", "clothing") for i, c in clothes]
    points = skin.vertices[model.landmarks]
    if sitting.glasses != "none":
        local = head.local(points)
        frames = glasses(head, sitting, eyes_at_rest - head.eyes, local)
        colour = frame_colour(sitting)
        parts += [
            _plain(f"glasses_{i}", m, colour, "gloss", "glasses") for i, m in enumerate(frames)
        ]
    camera = _camera(head.eyes, sitting)
    eyes = pose.apply(eyes_at_rest)
    five = np.concatenate([eyes, points[[30, 48, 54]]])
    return Portrait(parts, camera, eyes.mean(0), camera.project(points), camera.project(five))


def _rotation_vector(sitting: Sitting) -> np.ndarray:
    """Rotation vector of the head: pitch about x, roll about y, yaw about z."""
    return np.array([sitting.pitch, sitting.roll, sitting.yaw])


def _camera(eyes: np.ndarray, sitting: Sitting) -> Camera:
    sideways, upward = sitting.shift
    target = eyes + AIM + np.array([sideways, 0.0, upward])
    angle = sitting.camera_yaw
    away = CAMERA_DISTANCE * np.array([np.sin(angle), -np.cos(angle), 0.0])
    origin = target + away + np.array([0.0, 0.0, sitting.camera_lift])
    fov = 2.0 * np.degrees(np.arctan(0.5 * FRAME_HEIGHT / sitting.zoom / CAMERA_DISTANCE))
    return Camera(origin, target, float(fov))
