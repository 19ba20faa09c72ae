"""Triangle meshes: what every part of a portrait is made of."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["Mesh", "Surface", "ramp", "smooth_noise", "unit", "vertex_normals"]


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with positions `vertices` [n, 3] in metres and vertex numbers `faces` [m, 3]."""

    vertices: np.ndarray
    faces: np.ndarray

    @cached_property
    def normals(self) -> np.ndarray:
        """Area-weighted unit normals of the vertices [n, 3]."""
        return vertex_normals(self.vertices, self.faces)


@dataclass(frozen=True, eq=False)
class Surface:
    """A mesh with a color [n, 3] and a unit normal [n, 3] at each vertex."""

    mesh: Mesh
    color: np.ndarray
    normals: np.ndarray


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


def smooth_noise(points: np.ndarray, scale: float, seed: int, waves: int = 12) -> np.ndarray:
    """A smooth random field [n] at points [n, 3]: features of about `scale` m, unit variance."""
    rng = np.random.default_rng(seed)
    directions = (rng.normal(size=(3, waves)) * (2.0 / scale)).astype(np.float32)
    phases = rng.uniform(0.0, 2.0 * np.pi, waves).astype(np.float32)
    total = np.sin(points.astype(np.float32) @ directions + phases).sum(1)
    return total.astype(float) * np.sqrt(2.0 / waves)
