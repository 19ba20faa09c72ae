"""The light of a traced picture, smoothed along surfaces.

The light that reaches each surface (the picture divided by the surface's color) is smoothed along
surfaces of the same class, normal and depth, and on skin a little further in red than in blue: that
removes the noise of few samples and stands for the light that skin scatters below its surface
(after d'Eon and Luebke, "Advanced Techniques for Realiztic Real-Time Skin Rendering", GPU Gems 3,
chapter 14, 2007, which does the same in texture space). The passes are those of Dammertz et al.,
"Edge-Avoiding A-Trous Wavelet Transform for fast Global Illumination Filtering", HPG 2010, with
Gaussian weights.
"""

import numpy as np

from .scene import CLASS

__all__ = ["smooth"]

# Radii of the skin's light spread in red, green and blue (m), as short as marble-like softness
# allows at this size; the measured skin profiles of GPU Gems 3 reach about twice as far in red.
SCATTER = (0.0035, 0.0016, 0.0009)
PASSES = ((1, 1.4), (2, 1.4), (4, 1.0))  # step in picture elements, spread in steps
DEPTH_STEP = 0.012  # m; surfaces farther apart do not share light
LIGHT_LIMIT = 4.0  # brighter single paths (fireflies) are cut
SKIN = ("skin", "lips", "brows", "beard")  # one surface, of which the light spreads below
DETAILED = ("eyes", "glasses")  # what stays sharp
NOWHERE = 255  # stands for a class: mostly background, which is no source of light
OUTSIDE = 256  # beyond the picture's edges


def smooth(
    beauty: np.ndarray, features: np.ndarray, labels: np.ndarray, pixel: float
) -> np.ndarray:
    """The traced colors [h, w, 3] with their light smoothed, times their opacity.

    Args:
        beauty: color and opacity of the traced picture [h, w, 4].
        features: albedo, normal and depth (m) of what it shows [h, w, 7].
        labels: its classes [h, w].
        pixel: size of a picture element in metres.
    """
    beauty, features = beauty.astype(np.float32), features.astype(np.float32)
    albedo = np.clip(features[..., :3], 0.02, 1.0)
    normal, depth = features[..., 3:6], features[..., 6]
    alpha = np.maximum(beauty[..., 3:4], 1e-3)
    light = np.minimum(beauty[..., :3] / alpha / albedo, LIGHT_LIMIT)
    skin = np.isin(labels, [CLASS[name] for name in SKIN])
    groups = np.where(skin, CLASS["skin"], labels)
    groups[alpha[..., 0] <= 0.5] = NOWHERE
    scatter = np.where(skin[..., None], np.array(SCATTER) / pixel, 0.0)
    detailed = np.isin(labels, [CLASS[name] for name in DETAILED])
    for step, least in PASSES:
        spread = np.hypot(least, scatter / step)
        spread[detailed] = 0.7 if step == 1 else 0.01
        spread[groups == CLASS["eyes"]] = 0.40 / step
        light = _pass(light, normal, depth, groups, spread.astype(np.float32), step)
    return light * albedo * beauty[..., 3:4]


def _pass(
    light: np.ndarray,
    normal: np.ndarray,
    depth: np.ndarray,
    groups: np.ndarray,
    spread: np.ndarray,
    step: int,
) -> np.ndarray:
    """The weighted mean of 5 x 5 elements `step` apart; `spread` [h, w, 3] is in steps."""
    total, weights = light.copy(), np.ones_like(light)
    reach = 2 * step
    around = [(reach, reach), (reach, reach)]
    # Beyond the picture's edges there is nothing, and of a class that nothing in it has.
    far_groups = np.pad(groups.astype(int), around, constant_values=OUTSIDE)
    far_depth = np.pad(depth, around)
    far_normal, far_light = (np.pad(values, [*around, (0, 0)]) for values in (normal, light))
    height, width = depth.shape
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            if dx == 0 and dy == 0:
                continue
            top, left = reach - dy * step, reach - dx * step
            there = (slice(top, top + height), slice(left, left + width))
            bend = np.maximum(np.einsum("hwk,hwk->hw", normal, far_normal[there]), 0.0) ** 4
            near = np.exp(-(((far_depth[there] - depth) / DEPTH_STEP) ** 2))
            surface = (far_groups[there] == groups) * bend * near
            weight = surface[..., None] * np.exp(-0.5 * (dx * dx + dy * dy) / spread**2)
            total += weight * far_light[there]
            weights += weight
    return total / weights
