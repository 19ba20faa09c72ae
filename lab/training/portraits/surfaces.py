"""Meshes by construction: cut along a line, tubes, spheres."""

import numpy as np

from .meshes import Mesh, Surface, unit

__all__ = ["cut", "shell", "sphere", "tube", "tubes"]


def cut(mesh: Mesh, field: np.ndarray, *values: np.ndarray) -> tuple[Mesh, list[np.ndarray]]:
    """The part of the mesh where `field` [n] is positive, cut exactly along its zero line.

    Further arrays [n, ...] are interpolated the same way and returned for the new vertices.
    """
    positive = field > 0.0
    count = positive[mesh.faces].sum(1)
    pieces = [mesh.faces[count == 3]]
    ends: list[np.ndarray] = []
    shares: list[np.ndarray] = []
    first_new = len(mesh.vertices)

    def crossing(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
        """Numbers of new vertices on the edges inside -> outside."""
        nonlocal first_new
        numbers = first_new + np.arange(len(inside))
        first_new += len(inside)
        ends.append(np.stack([inside, outside], axis=1))
        shares.append(field[inside] / (field[inside] - field[outside]))
        return numbers

    for inside_count in (1, 2):
        faces = mesh.faces[count == inside_count]
        odd = np.argmax(positive[faces] == (inside_count == 1), axis=1)
        a, b, c = (faces[np.arange(len(faces)), (odd + k) % 3] for k in range(3))
        if inside_count == 1:
            pieces.append(np.stack([a, crossing(a, b), crossing(a, c)], axis=1))
        else:
            ab, ac = crossing(b, a), crossing(c, a)
            pieces += [np.stack([ab, b, c], axis=1), np.stack([ab, c, ac], axis=1)]
    edges, share = np.concatenate(ends), np.concatenate(shares)[:, None]
    faces = np.concatenate(pieces)
    used, faces = np.unique(faces, return_inverse=True)

    def carry(value: np.ndarray) -> np.ndarray:
        flat = value.reshape(len(value), -1)
        added = flat[edges[:, 0]] * (1.0 - share) + flat[edges[:, 1]] * share
        return np.concatenate([flat, added])[used].reshape(-1, *value.shape[1:])

    return Mesh(carry(mesh.vertices), faces.reshape(-1, 3)), [carry(v) for v in values]


def shell(mesh: Mesh, field: np.ndarray, color: np.ndarray) -> Surface:
    """The part of the mesh where `field` [n] is positive, with these colors [n, 3]."""
    part, (color, normals) = cut(mesh, field, color, mesh.normals)
    return Surface(part, color, unit(normals))


def tube(path: np.ndarray, radius: float, closed: bool, sides: int = 6) -> Mesh:
    """A tube of this radius (m) along the points [n, 3]; a closed one also joins their ends."""
    after, before = np.roll(path, -1, axis=0), np.roll(path, 1, axis=0)
    if not closed:
        after[-1], before[0] = path[-1], path[0]
    tangent = unit(after - before)
    helper = np.where(np.abs(tangent[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    across = unit(np.cross(tangent, helper))
    up = np.cross(tangent, across)
    angle = np.arange(sides) * 2.0 * np.pi / sides
    cosine, sine = np.cos(angle)[None, :, None], np.sin(angle)[None, :, None]
    ring = cosine * across[:, None] + sine * up[:, None]
    vertices = (path[:, None] + radius * ring).reshape(-1, 3)
    rows = np.arange(len(path) if closed else len(path) - 1)
    return Mesh(vertices, _grid_faces(rows, len(path), sides, wrap=True))


def _grid_faces(rows: np.ndarray, n_rows: int, columns: int, wrap: bool) -> np.ndarray:
    """Triangles of a grid of vertices numbered row by row; `wrap` joins last and first column."""
    column = np.arange(columns if wrap else columns - 1)
    r, c = (g.ravel() for g in np.meshgrid(rows, column, indexing="ij"))
    next_row, next_column = (r + 1) % n_rows, (c + 1) % columns
    a, b = r * columns + c, r * columns + next_column
    d, e = next_row * columns + c, next_row * columns + next_column
    return np.concatenate([np.stack([a, b, e], axis=1), np.stack([a, e, d], axis=1)])


def sphere(rings: int, columns: int) -> Mesh:
    """A unit sphere whose poles lie on the y axis, the first one in front (y = -1)."""
    polar = np.linspace(0.0, np.pi, rings)
    angle = np.arange(columns) * 2.0 * np.pi / columns
    vertices = np.stack(
        [
            np.sin(polar)[:, None] * np.cos(angle)[None],
            np.broadcast_to(-np.cos(polar)[:, None], (rings, columns)),
            np.sin(polar)[:, None] * np.sin(angle)[None],
        ],
        axis=2,
    ).reshape(-1, 3)
    return Mesh(vertices, _grid_faces(np.arange(rings - 1), rings, columns, wrap=True)[:, ::-1])


def tubes(
    paths: np.ndarray, across: np.ndarray, up: np.ndarray, sides: int
) -> tuple[Mesh, np.ndarray]:
    """Tubes of elliptic cross section along paths [n, k, 3], open at their ends.

    Args:
        across, up: half axes [n, k, 3] of the cross section (m), at right angles to the path.
        sides: corners of a cross section.

    Returns:
        The mesh, and its unit normals [n k sides, 3].
    """
    n, k, _ = paths.shape
    angle = np.arange(sides) * 2.0 * np.pi / sides
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    vertices = paths[:, :, None] + cosine * across[:, :, None] + sine * up[:, :, None]
    # The normal of an ellipse is along its gradient: each axis divided by its squared length.
    a, b = (np.maximum(np.einsum("nki,nki->nk", v, v), 1e-12) for v in (across, up))
    normals = cosine * (across / a[..., None])[:, :, None] + sine * (up / b[..., None])[:, :, None]
    one = _grid_faces(np.arange(k - 1), k, sides, wrap=True)
    faces = (np.arange(n) * k * sides)[:, None, None] + one
    return Mesh(vertices.reshape(-1, 3), faces.reshape(-1, 3)), unit(normals.reshape(-1, 3))
