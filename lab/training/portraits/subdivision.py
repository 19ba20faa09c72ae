"""Subdivision of quad meshes.

Catmull and Clark, "Recursively generated B-spline surfaces on arbitrary topological meshes",
Computer-Aided Design 10 (6), 1978.
"""

import numpy as np
from scipy import sparse

__all__ = ["catmull_clark", "split_quads"]


def split_quads(quads: np.ndarray) -> np.ndarray:
    """Two triangles per quad [n, 4] -> [2n, 3]: those of the second corners come behind."""
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def catmull_clark(count: int, quads: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """One Catmull-Clark step as a linear map of positions [new, count], and the new quads.

    The new vertices are the old ones, then one of each edge, then one of each quad; the children of
    quad k of n are k, k + n, k + 2n and k + 3n. At a boundary, vertices and edges follow the cubic
    B-spline, so that a cut mesh keeps its rim.

    Args:
        count: number of vertices.
        quads: [n, 4] vertex numbers.
    """
    numbers = np.arange(len(quads))
    edges, of_quad = _edges(quads)
    n_edges = len(edges)
    face_points = _incidence(np.repeat(numbers, 4), quads.ravel(), 0.25, (len(quads), count))
    ends = _incidence(np.repeat(np.arange(n_edges), 2), edges.ravel(), 0.5, (n_edges, count))
    sides = _incidence(of_quad.ravel(), np.tile(numbers, 4), 1.0, (n_edges, len(quads)))
    inner = np.asarray(sides.sum(1)).ravel() == 2
    across = sparse.diags(np.full(n_edges, 0.5)) @ sides @ face_points
    edge_points = sparse.diags(inner * 0.5) @ (ends + across)
    edge_points = edge_points + sparse.diags((~inner).astype(float)) @ ends
    vertex_points = _vertex_points(count, quads, edges, inner, ends, face_points)
    corners = (quads.T, of_quad + count, numbers + count + n_edges)
    return sparse.vstack([vertex_points, edge_points, face_points]).tocsr(), _children(*corners)


def _edges(quads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertex numbers of the edges [e, 2], and the edges of each quad [4, n]."""
    every = np.sort(np.concatenate([quads[:, [k, (k + 1) % 4]] for k in range(4)]), axis=1)
    edges, of_quad = np.unique(every, axis=0, return_inverse=True)
    return edges, of_quad.reshape(4, len(quads))


def _incidence(
    rows: np.ndarray, columns: np.ndarray, value: float, shape: tuple[int, int]
) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.full(len(rows), value), (rows, columns)), shape)


def _vertex_points(
    count: int,
    quads: np.ndarray,
    edges: np.ndarray,
    inner: np.ndarray,
    ends: sparse.csr_matrix,
    face_points: sparse.csr_matrix,
) -> sparse.csr_matrix:
    """Return the weights [count, count] by which the old vertices move.

    With n edges at a vertex P, Q the mean of its face points and R the mean of the middles of its
    edges: (Q + 2 R + (n - 3) P) / n; on the rim (R + P) / 2 along the rim.
    """
    valence = np.bincount(edges.ravel(), minlength=count).astype(float)
    rim = np.bincount(edges[~inner].ravel(), minlength=count) > 0
    numbers = np.repeat(np.arange(len(edges)), 2)
    at_edge = _incidence(edges.ravel(), numbers, 1.0, (count, len(edges)))
    of_corner = np.repeat(np.arange(len(quads)), 4)
    at_face = _incidence(quads.ravel(), of_corner, 1.0, (count, len(quads)))
    weight = np.where(rim, 0.0, 1.0 / np.maximum(valence, 1.0))
    points = sparse.diags(weight / np.maximum(valence, 1.0)) @ (at_face @ face_points)
    points = points + sparse.diags(2.0 * weight / np.maximum(valence, 1.0)) @ (at_edge @ ends)
    points = points + sparse.diags(np.where(rim, 0.0, 1.0 - 3.0 * weight))
    along_rim = sparse.diags(rim * 0.25) @ (at_edge @ sparse.diags((~inner) * 1.0) @ ends)
    points = points + along_rim + sparse.diags(rim * 0.5)
    total = np.asarray(points.sum(1)).ravel()  # more than 1 where the rim meets itself
    return sparse.diags(1.0 / np.where(total == 0.0, 1.0, total)) @ points


def _children(vertices: np.ndarray, edges: np.ndarray, center: np.ndarray) -> np.ndarray:
    """New quads [4n, 4] from the new numbers of old vertices [4, n], edges [4, n], faces [n]."""
    return np.concatenate(
        [np.stack([vertices[k], edges[k], center, edges[(k + 3) % 4]], axis=1) for k in range(4)]
    )
