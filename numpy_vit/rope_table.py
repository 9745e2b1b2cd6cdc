r"""Rotary table: by how much each pair of channels turns at each patch, from fixed frequencies.

There are several ways to place a grid's patches on its axes, and to choose the frequencies. All compute in float64.
"""

import math

import numpy as np

from vit_common.config import ViTConfig
from vit_common.errors import check_sizes

Array = np.ndarray


def patch_grid(
    grid: tuple[int, int], indexing: str = "ij", offset: float = 0.0, ref: tuple[int, int] | None = None
) -> Array:
    r"""Patch indices (N, 2), row by row: (row, column) for "ij", (column, row) for "xy".

    `ref`: the grid of pre-training; $t \mapsto t / n \cdot n_\mathrm{ref}$ lays this grid over that one (EVA-02).
    """
    check_sizes("grid", grid)
    axes = [np.arange(n, dtype=np.float64) + offset for n in grid]
    if ref is not None:
        axes = [t / n * r for t, n, r in zip(axes, grid, ref, strict=True)]
    return _mesh(axes, indexing)


def centred_grid(grid: tuple[int, int], indexing: str = "ij", offset: float = 0.0) -> Array:
    r"""Patch centres on $[-1, 1]$, (N, 2): $2 (i + \tfrac12 + \mathrm{offset})/n - 1$ (DINOv3)."""
    return _mesh([2.0 * ((np.arange(n) + 0.5 + offset) / n) - 1.0 for n in grid], indexing)


def pixel_grid(grid: tuple[int, int], indexing: str = "ij") -> Array:
    r"""Points evenly spaced on $[-1, 1]$ with both ends, (N, 2)."""
    return _mesh([np.linspace(-1.0, 1.0, n) for n in grid], indexing)


def rope_table(config: ViTConfig) -> tuple[Array, Array]:
    r"""sin and cos of the angles, (1, 1, N, HD/2) each, frequencies $\omega_j$, $j < HD/4$, first axis then second:

    $$\theta_n = [\,t_{n1}\, \omega,\; t_{n2}\, \omega\,]$$

    "lang": $\omega_j = b^{-4j/HD}$ on patch indices (Su et al. 2021, eq. 15, in two dimensions); "pixel": $\pi$ times
    bands from 1 to half of `rope_max_res`, evenly in the logarithm, on $[-1, 1]$; "dinov3": $2\pi\, b^{-4j/HD}$ on
    patch centres (Siméoni et al. 2025). "multimodal": $\theta_{nj} = t_{n,a(j)}\, b^{-2j/HD}$, $j < HD/2$, the axis
    $a(j)$ being time, row, column in turn, and time again for an axis that has had its share in `rope_section`
    (interleaved, as in Qwen3-VL; Wang et al. 2024, Qwen2-VL, take three runs); a picture has no time: $t = 0$ there.
    """
    if config.rope == "multimodal":
        bands = config.rope_temperature ** -(np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim)
        points = np.pad(patch_grid(config.grid_size), ((0, 0), (1, 0)))  # (N, 3): time, row, column
        angles = (points[:, turns(len(bands), config.rope_section)] * bands)[None, None]
        return np.sin(angles), np.cos(angles)
    count, indexing = config.head_dim // 4, config.rope_grid_indexing
    inverse = config.rope_temperature ** -(np.arange(count, dtype=np.float64) / count)
    if config.rope == "dinov3":
        points, bands = centred_grid(config.grid_size, indexing, config.rope_grid_offset), 2.0 * math.pi * inverse
    elif config.rope_freqs == "pixel":
        points = pixel_grid(config.grid_size, indexing)
        bands = math.pi * 2.0 ** np.linspace(0.0, math.log2(config.rope_max_res) - 1.0, count)
    else:
        points = patch_grid(config.grid_size, indexing, config.rope_grid_offset, config.rope_ref_grid)
        bands = inverse
    angles = (points[:, :, None] * bands).reshape(1, 1, len(points), 2 * count)
    return np.sin(angles), np.cos(angles)


def turns(count: int, section: tuple[int, int, int]) -> Array:
    """The axis of each of `count` frequencies: 0, 1, 2, 0, 1, 2, ..., and 0 for an axis that has had its share."""
    j = np.arange(count)
    return np.where(j < 3 * np.array(section)[j % 3], j % 3, 0)


def _mesh(axes: list[Array], indexing: str) -> Array:
    rows, columns = np.meshgrid(*axes, indexing="ij")
    order = (rows, columns) if indexing == "ij" else (columns, rows)
    return np.stack([part.reshape(-1) for part in order], axis=-1)
