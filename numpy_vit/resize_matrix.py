r"""Resizing along one axis as a matrix: each library's rule by its name."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vit_common.errors import ConfigError, nearest

Array = np.ndarray


def resize_matrix(new: int, old: int, rule: str) -> Array:
    r"""(new, old) in float64: row i holds the weights of the old points in new point i.

    Pixel centres aligned, point i of the new grid stands at $(i + \tfrac12)\, old/(new + \delta) - \tfrac12$ of the
    old; corners aligned, at $i\, (old - 1)/(new - 1)$. Bicubic is Keys' kernel (Keys 1981, eq. 4), $a = -0.75$, with
    antialias $a = -0.5$. With antialias every kernel is stretched by $old/(new + \delta)$ where that exceeds 1. `RULES`
    says which library does what.

    Raises:
        ConfigError: an unknown rule.
    """
    if rule not in RULES:
        raise ConfigError(f"resize rule {rule!r} is unknown; {nearest(rule, RULES)}")
    kernel, radius, corners, antialias, offset, drops = RULES[rule]
    if antialias and new == old:  # such an axis is left as it is, whatever the offset
        return np.eye(old)
    i, ratio = np.arange(new, dtype=np.float64)[:, None], old / (new + offset)
    if corners:
        centre = i * ((old - 1) / (new - 1)) if new > 1 else i
    else:
        centre = (i + 0.5) * ratio - 0.5
    if antialias:  # the window is cut at the border, and its weights made to sum to 1
        distance = (np.arange(old) - centre) / max(ratio, 1.0)
        weights = np.where(np.abs(distance) < radius, kernel(distance), 0.0)
        return weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((new, old))
    first = np.floor(centre).astype(np.int64)
    for step in range(1 - radius, radius + 1):  # beyond the border stands the border's point
        place = np.clip(first + step, 0, old - 1)
        np.add.at(matrix, (np.arange(new)[:, None], place), kernel(centre - (first + step)))
    if drops:
        matrix[centre[:, 0] > old - 1] = 0.0
    return matrix


def _cubic(a: float) -> Callable[[Array], Array]:
    def kernel(x: Array) -> Array:
        x = np.abs(x)
        inner = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
        outer = a * (((x - 5.0) * x + 8.0) * x - 4.0)
        return np.where(x <= 1.0, inner, np.where(x < 2.0, outer, 0.0))

    return kernel


def _triangle(x: Array) -> Array:
    return np.maximum(1.0 - np.abs(x), 0.0)


class Rule(NamedTuple):
    kernel: Callable[[Array], Array]
    radius: int
    corners: bool = False  # corners aligned
    antialias: bool = False
    offset: float = 0.0  # delta above, added to the new size
    drops: bool = False  # a point that rounding puts past the last one gets zeros


SHARP, SMOOTH, LINEAR = (_cubic(-0.75), 2), (_cubic(-0.5), 2), (_triangle, 1)
RULES: dict[str, Rule] = {
    "timm_bicubic": Rule(*SMOOTH, antialias=True),
    "timm_bicubic_no_antialias": Rule(*SHARP),
    "timm_bilinear": Rule(*LINEAR, antialias=True),
    "timm_bilinear_no_antialias": Rule(*LINEAR),
    "huggingface_bicubic": Rule(*SHARP),
    "huggingface_bilinear": Rule(*LINEAR),
    "torchvision_bicubic": Rule(*SHARP, corners=True),
    "google_zoom": Rule(*LINEAR, corners=True, drops=True),  # scipy.ndimage.zoom of order 1, big_vision's too
    "open_clip_bicubic": Rule(*SMOOTH, antialias=True),
    "mae_bicubic": Rule(*SHARP),
    # "to avoid floating point error", dino resizes by a factor of (new + 0.1) / old; dinov2 too, unless told not to
    "dino_bicubic": Rule(*SHARP, offset=0.1),
    "dinov2_bicubic": Rule(*SHARP, offset=0.1),
    "dinov2_bicubic_antialias": Rule(*SMOOTH, antialias=True, offset=0.1),
    "dinov2_registers_bicubic": Rule(*SMOOTH, antialias=True),
    "flexivit_bilinear": Rule(*LINEAR, antialias=True),
    "flexivit_patch_bilinear": Rule(*LINEAR),
}
