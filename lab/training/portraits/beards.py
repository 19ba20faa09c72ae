"""Beards: where they grow on the face, and their hair."""

import numpy as np

from .head import Head, HeadModel
from .meshes import Surface, ramp, smooth_noise
from .palette import NEUTRAL
from .people import Sitting
from .surfaces import cut

__all__ = ["beard_weight", "grow_beard"]

# Height of a beard over the skin (m); stubble is painted on the skin alone.
THICKNESS = {"moustache": 0.004, "goatee": 0.007, "short": 0.005, "full": 0.012}
EDGE = 0.35  # of the weight, from which on hair stands
UPPER_LIP = -0.072  # z; above it a beard stays thin
UPPER_THICKNESS = 0.004


def beard_weight(model: HeadModel, kind: str) -> np.ndarray:
    """Return how much each vertex belongs to a beard of this kind [n]."""
    x, y, z = model.place.T
    distance = np.abs(x)
    free = (1.0 - ramp(model.lips, 0.15, 0.4)) * (1.0 - model.mouth_inside)
    moustache = ramp(distance, 0.029, 0.022) * ramp(z, -0.074, -0.068) * ramp(z, -0.052, -0.058)
    moustache *= ramp(y, 0.02, 0.0)
    chin = ramp(distance, 0.028, 0.018) * ramp(z, -0.081, -0.087) * ramp(z, -0.128, -0.118)
    chin *= ramp(y, 0.03, 0.015)
    around = ramp(distance, 0.033, 0.029) * ramp(distance, 0.021, 0.025) * ramp(z, -0.062, -0.068)
    around *= ramp(z, -0.100, -0.092) * ramp(y, 0.03, 0.015)
    # the upper edge of a full beard rises from the mouth's corners to the ears
    edge = -0.068 + 0.062 * ramp(y, 0.015, 0.062)
    jaw = ramp(z, edge + 0.005, edge - 0.004) * ramp(z, -0.140, -0.125) * ramp(y, 0.078, 0.068)
    jaw *= ramp(distance, 0.080, 0.074)
    under = ramp(z, -0.080, -0.086) * ramp(z, -0.140, -0.125) * ramp(y, 0.070, 0.055)
    jaw = np.maximum(jaw * np.maximum(ramp(distance, 0.024, 0.030), ramp(z, -0.08, -0.087)), under)
    full = np.maximum(np.maximum(jaw, moustache), around)
    parts = {
        "none": np.zeros_like(x),
        "moustache": moustache,
        "goatee": np.maximum(np.maximum(chin, moustache), around),
        "stubble": full,
        "short": full,
        "full": full,
    }
    return parts[kind] * free


def grow_beard(head: Head, sitting: Sitting, weight: np.ndarray) -> list[Surface]:
    """The beard as one smooth volume where its `weight` [n] on the skin is high; empty without."""
    if sitting.beard not in THICKNESS:
        return []
    place = head.place
    weight = weight[: len(place)]
    longer = 1.0 + (0.8 * ramp(place[:, 2], -0.08, -0.11) if sitting.beard == "full" else 0.0)
    bumps = 1.0 + 0.12 * smooth_noise(place, 0.020, sitting.hair_seed + 3)
    edge = ramp(weight, EDGE, 1.0)
    lift = 0.0006 + THICKNESS[sitting.beard] * longer * edge * np.clip(bumps, 0.6, 1.4)
    lift = np.where(place[:, 2] > UPPER_LIP, np.minimum(lift, UPPER_THICKNESS), lift)
    mesh, _ = cut(head.raised(lift), weight - EDGE)
    if not len(mesh.faces):
        return []
    color = np.full((len(mesh.vertices), 3), 0.9 * NEUTRAL)
    return [Surface(mesh, color, mesh.normals)]
