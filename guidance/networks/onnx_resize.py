"""ONNX's Resize in all its conventions, of which PyTorch's interpolation has a few.

Values and places are those of the standard's text, as onnxruntime computes them.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .onnx_checks import LARGEST_TENSOR

__all__ = ["Resize"]

MODES = ("nearest", "linear", "cubic")
PLACES = (
    "align_corners",
    "asymmetric",
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "outwards")
POLICIES = ("stretch", "not_larger", "not_smaller")

# The coefficient of PyTorch's cubic interpolation.
CUBIC = -0.75

# Matrices kept: a network has a few sizes.
KEPT = 64


class Resize(nn.Module):
    """Resize, and Upsample before it.

    Args:
        as the operator's attributes. ``nearest_mode`` "outwards", of version 10 only, is floor
        upwards and ceil downwards; ``scales`` were an attribute of Upsample.

    Raises:
        ValueError: an attribute has a value that is not known; the message names it.
    """

    def __init__(
        self,
        mode: str = "nearest",
        coordinate_transformation_mode: str = "half_pixel",
        nearest_mode: str = "round_prefer_floor",
        cubic_coeff_a: float = CUBIC,
        exclude_outside: int = 0,
        extrapolation_value: float = 0.0,  # of tf_crop_and_resize only
        antialias: int = 0,
        axes: Sequence[int] = (),
        keep_aspect_ratio_policy: str = "stretch",
        scales: Sequence[float] = (),
    ):
        super().__init__()
        for name, value, known in (
            ("mode", mode, MODES),
            ("coordinate_transformation_mode", coordinate_transformation_mode, PLACES),
            ("nearest_mode", nearest_mode, NEAREST),
            ("keep_aspect_ratio_policy", keep_aspect_ratio_policy, POLICIES),
        ):
            if value not in known:
                raise ValueError(f"{name} '{value}' has no PyTorch counterpart")
        self.mode, self.places, self.nearest = mode, coordinate_transformation_mode, nearest_mode
        self.cubic, self.exclude = cubic_coeff_a, bool(exclude_outside)
        self.antialias, self.axes = bool(antialias) and mode != "nearest", tuple(axes)
        self.policy, self.scales = keep_aspect_ratio_policy, tuple(scales)

    def forward(
        self,
        x: Tensor,
        roi: Tensor | None = None,
        scales: Tensor | None = None,
        sizes: Tensor | None = None,
    ) -> Tensor:
        axes = [axis % x.ndim for axis in self.axes] or list(range(x.ndim))
        before = [x.shape[axis] for axis in axes]
        if self.scales:
            scales = torch.tensor(self.scales)
        after = self._after(before, scales, sizes)
        changed = {
            axis: (size, scale)
            for axis, old, (size, scale) in zip(axes, before, after, strict=True)
            if size != old or scale != 1.0
        }
        sides = [changed[axis][0] if axis in changed else x.shape[axis] for axis in range(x.ndim)]
        if min(sides) < 1 or prod(sides) > LARGEST_TENSOR:
            raise ValueError(f"Resize of {list(x.shape)} to {sides}")
        if self._is_pytorchs(x, changed):
            return self._by_pytorch(x, changed)
        for axis, (size, scale) in changed.items():
            x = self._along(x, axis, size, scale)
        return x

    def _after(
        self, before: list[int], scales: Tensor | None, sizes: Tensor | None
    ) -> list[tuple[int, float]]:
        """Size and scale of each axis."""
        if scales is not None and scales.numel():
            single = scales.float().cpu().numpy()  # as onnxruntime, which multiplies in float32
            return [
                (int(np.floor(s * np.float32(b))), float(s))
                for s, b in zip(single, before, strict=True)
            ]
        assert sizes is not None  # one of the two is given
        wanted = sizes.tolist()
        ratios = [size / old for size, old in zip(wanted, before, strict=True)]
        if self.policy == "stretch":
            return list(zip(wanted, ratios, strict=True))
        ratio = min(ratios) if self.policy == "not_larger" else max(ratios)
        return [(int(np.floor(ratio * old + 0.5)), ratio) for old in before]

    def _is_pytorchs(self, x: Tensor, changed: dict) -> bool:
        """Whether PyTorch's interpolation, which is faster, looks in the same places."""
        whole = all(size == scale * x.shape[axis] for axis, (size, scale) in changed.items())
        if not changed or x.ndim != 4 or not set(changed) <= {2, 3} or not whole:
            return False
        if self.mode == "nearest":
            multiples = all(size % x.shape[axis] == 0 for axis, (size, _) in changed.items())
            return (
                self.places == "asymmetric" and self.nearest in ("floor", "outwards") and multiples
            )
        if self.exclude or self.antialias or (self.mode == "cubic" and self.cubic != CUBIC):
            return False
        half = self.places == "half_pixel" or (
            self.places == "pytorch_half_pixel" and all(size > 1 for size, _ in changed.values())
        )
        return half or self.places == "align_corners"

    def _by_pytorch(self, x: Tensor, changed: dict) -> Tensor:
        size = [changed[axis][0] if axis in changed else x.shape[axis] for axis in (2, 3)]
        if self.mode == "nearest":
            return F.interpolate(x, size=size, mode="nearest")
        mode = {"linear": "bilinear", "cubic": "bicubic"}[self.mode]
        align = self.places == "align_corners"
        return F.interpolate(x, size=size, mode=mode, align_corners=align)

    def _along(self, x: Tensor, axis: int, size: int, scale: float) -> Tensor:
        old = x.shape[axis]
        if self.mode == "nearest":
            places = _nearest(old, size, scale, self.places, self.nearest)
            return x.index_select(axis, torch.from_numpy(places).to(x.device))
        matrix = _matrix(
            old, size, scale, self.places, self.mode, self.cubic, self.exclude, self.antialias
        )
        weights = torch.from_numpy(matrix).to(x.device, x.dtype)
        return (x.movedim(axis, -1) @ weights.T).movedim(-1, axis)


def _places(old: int, size: int, scale: float, convention: str) -> np.ndarray:
    """Where each of ``size`` new places lies among ``old`` ones, float32 ``[size]``."""
    new = np.arange(size, dtype=np.float32)
    scale = np.float32(scale)  # type: ignore[assignment]
    half = np.float32(0.5)
    if convention == "asymmetric":
        return new / scale
    if convention == "tf_half_pixel_for_nn":
        return (new + half) / scale
    if convention == "align_corners":
        return new * np.float32(old - 1) / np.float32(size - 1) if size > 1 else new * 0
    if convention == "pytorch_half_pixel" and size == 1:
        return new * 0
    offset = np.float32(0)
    if convention == "half_pixel_symmetric":
        offset = np.float32(old) / 2 * (1 - np.float32(size) / (scale * np.float32(old)))
    return (offset + ((new + half) / scale - half)).astype(np.float32)


@lru_cache(KEPT)
def _nearest(old: int, size: int, scale: float, convention: str, rounding: str) -> np.ndarray:
    """Which old place each new one shows, ``[size]``."""
    places = _places(old, size, scale, convention)
    half = np.float32(0.5)
    if rounding == "outwards":
        rounding = "ceil" if scale < 1 else "floor"
    rounded = {
        "floor": np.floor(places),
        "ceil": np.ceil(places),
        "round_prefer_floor": np.ceil(places - half),
        "round_prefer_ceil": np.floor(places + half),
    }[rounding]
    return rounded.clip(0, old - 1).astype(np.int64)


@lru_cache(KEPT)
def _matrix(
    old: int,
    size: int,
    scale: float,
    convention: str,
    mode: str,
    cubic: float,
    exclude: bool,
    antialias: bool,
) -> np.ndarray:
    """How much of each old place is in each new one, float32 ``[size, old]``."""
    places = _places(old, size, scale, convention).astype(np.float64)[:, None]
    if mode == "linear" and not antialias:
        places = places.clip(0, old - 1)
    wide = max(1.0, 1.0 / scale) if antialias else 1.0
    reach = wide * (1 if mode == "linear" else 2)
    taps = np.floor(places - reach).astype(int) + np.arange(
        int(np.ceil(2 * reach)) + 2
    )  # [size, taps]
    distance = np.abs(taps - places) / wide
    weights = np.maximum(1 - distance, 0) if mode == "linear" else _cubic(distance, cubic)
    if exclude:
        weights = weights * ((taps >= 0) & (taps < old))
    if exclude or antialias:
        weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((size, old), dtype=np.float64)
    np.add.at(matrix, (np.arange(size)[:, None], taps.clip(0, old - 1)), weights)
    return matrix.astype(np.float32)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel (IEEE ASSP 29, 1981) with the coefficient ``a``."""
    d = distance
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
