"""Beards: where they grow on the face, and their hair."""

import numpy as np

from .head import Head, HeadModel
from .meshes import Surface, ramp, unit
from .people import Identity, Sitting
from .strands import STEPS, draw_roots, shades, woven

__all__ = ["beard_weight", "grow_beard"]

# Length of a beard's hair (m); stubble is painted on the skin alone.
LENGTHS = {"moustache": 0.011, "goatee": 0.014, "short": 0.009, "full": 0.026}
ROOTS = 700
WIDTH = 0.0035  # m, of a lock
UPPER_LIP = -0.072  # z; above it hair stays short
UPPER_LENGTH = 0.009


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


def grow_beard(head: Head, person: Identity, sitting: Sitting, weight: np.ndarray) -> list[Surface]:
    """The beard's hair where its `weight` [n] on the skin is high; empty without one."""
    if sitting.beard not in LENGTHS:
        return []
    rng = np.random.default_rng(sitting.hair_seed + 3)
    roots = draw_roots(rng, head.skin, weight * (weight > 0.3), ROOTS)
    if not len(roots):
        return []
    place = roots.at(head.model.place)
    start, normal = roots.at(head.skin.vertices), roots.at(head.skin.normals)
    upper = place[:, 2] > UPPER_LIP
    sideways = np.where(upper, 14.0, -4.0) * place[:, 0]
    down = np.stack([sideways, np.full(len(place), -0.2), np.full(len(place), -1.0)], axis=1)
    down = down + rng.normal(0.0, 0.25, place.shape)
    direction = unit(unit(down) @ head.pose.rotation.T + 0.5 * normal)
    longer = 1.0 + (0.6 * ramp(place[:, 2], -0.08, -0.11) if sitting.beard == "full" else 0.0)
    length = LENGTHS[sitting.beard] * longer * rng.uniform(0.7, 1.2, len(place))
    length = np.where(upper, np.minimum(length, UPPER_LENGTH), length)
    along = np.linspace(0.0, 1.0, STEPS)[None, :, None] * length[:, None, None]
    paths = (start + 0.0005 * normal)[:, None] + along * direction[:, None]
    paths[..., 2] -= 6.0 * along[..., 0] ** 2
    normals = np.broadcast_to(normal[:, None], paths.shape)
    return [woven(rng, paths, normals, WIDTH, shades(rng, person.hair, len(paths)))]
