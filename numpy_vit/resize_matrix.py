r"""Resizing along one axis as a matrix: each library's rule by its name."""

from collections.abc import Callable

import numpy as np

from vit_common.errors import ConfigError, nearest

Array = np.ndarray


def resize_matrix(new: int, old: int, rule: str) -> Array:
    r"""(new, old) in float64: row i holds the weights of the old points in new point i.

    `timm_*` (with antialias unless said otherwise), `huggingface_bicubic`: pixel centres aligned, point i of the new
    grid at $(i + \tfrac12)\, old/new - \tfrac12$ of the old. `torchvision_bicubic`, `google_zoom` (order 1): corners
    aligned, at $i\, (old - 1)/(new - 1)$. Bicubic is Keys' kernel with $a = -0.75$, with antialias $a = -0.5$ and
    stretched by $old/new$ where that shrinks (Keys 1981, eq. 4).

    Raises:
        ConfigError: an unknown rule.
    """
    if rule not in RULES:
        raise ConfigError(f"resize rule {rule!r} is unknown; {nearest(rule, RULES)}")
    kernel, radius, corners, antialias = RULES[rule]
    i = np.arange(new, dtype=np.float64)[:, None]
    if corners:
        centre = i * ((old - 1) / (new - 1)) if new > 1 else i
    else:
        centre = (i + 0.5) * (old / new) - 0.5
    stretch = max(old / new, 1.0) if antialias else 1.0
    if antialias:  # the window is cut at the border, and its weights made to sum to 1
        distance = (np.arange(old) - centre) / stretch
        weights = np.where(np.abs(distance) < radius, kernel(distance), 0.0)
        return weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((new, old))
    first = np.floor(centre).astype(np.int64)
    for offset in range(1 - radius, radius + 1):  # beyond the border stands the border's point
        place = np.clip(first + offset, 0, old - 1)
        np.add.at(matrix, (np.arange(new)[:, None], place), kernel(centre - (first + offset)))
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


# rule: kernel, its radius, corners aligned, antialias
RULES: dict[str, tuple[Callable[[Array], Array], int, bool, bool]] = {
    "timm_bicubic": (_cubic(-0.5), 2, False, True),
    "timm_bicubic_no_antialias": (_cubic(-0.75), 2, False, False),
    "timm_bilinear": (_triangle, 1, False, True),
    "timm_bilinear_no_antialias": (_triangle, 1, False, False),
    "huggingface_bicubic": (_cubic(-0.75), 2, False, False),
    "torchvision_bicubic": (_cubic(-0.75), 2, True, False),
    "google_zoom": (_triangle, 1, True, False),
}
