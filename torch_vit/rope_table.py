r"""Rotary table: by how much each pair of channels turns at each patch, from fixed frequencies, in float64."""

import math

import torch
from torch import Tensor

from vit_common.config import ViTConfig
from vit_common.errors import check_sizes


def patch_grid(
    grid: tuple[int, int], indexing: str = "ij", offset: float = 0.0, ref: tuple[int, int] | None = None
) -> Tensor:
    """Patch indices (N, 2), row by row: (row, column) for "ij", (column, row) for "xy"; laid over the grid `ref`."""
    check_sizes("grid", grid)
    axes = [torch.arange(n, dtype=torch.float64) + offset for n in grid]
    if ref is not None:
        axes = [t * (r / n) for t, n, r in zip(axes, grid, ref, strict=True)]
    return _mesh(axes, indexing)


def centred_grid(grid: tuple[int, int], indexing: str = "ij", offset: float = 0.0) -> Tensor:
    """Patch centres on [-1, 1], (N, 2) (DINOv3)."""
    return _mesh([(2 * (torch.arange(n, dtype=torch.float64) + offset) + 1) / n - 1 for n in grid], indexing)


def pixel_grid(grid: tuple[int, int], indexing: str = "ij") -> Tensor:
    """Points evenly spaced on [-1, 1] with both ends, (N, 2)."""
    return _mesh([torch.linspace(-1.0, 1.0, n, dtype=torch.float64) for n in grid], indexing)


def rope_table(config: ViTConfig) -> tuple[Tensor, Tensor]:
    """sin and cos of the angles, (1, 1, N, HD/2) each, of the configuration's fixed frequencies."""
    if config.rope == "multimodal":
        half = config.head_dim // 2
        bands = torch.exp(-math.log(config.rope_temperature) * torch.arange(half, dtype=torch.float64) / half)
        row, column = patch_grid(config.grid_size).unbind(-1)
        points = torch.stack((torch.zeros_like(row), row, column))[turns(half, config.rope_section)]  # (HD/2, N)
        angles = (points.T * bands)[None, None]
        return angles.sin(), angles.cos()
    count, indexing = config.head_dim // 4, config.rope_grid_indexing
    steps = torch.arange(count, dtype=torch.float64) / count
    bands = torch.exp(-math.log(config.rope_temperature) * steps)
    if config.rope == "dinov3":
        points = centred_grid(config.grid_size, indexing, config.rope_grid_offset) * (2 * math.pi)
    elif config.rope_freqs == "pixel":
        points = pixel_grid(config.grid_size, indexing) * math.pi
        bands = torch.logspace(0, math.log2(config.rope_max_res) - 1, count, base=2, dtype=torch.float64)
    else:
        points = patch_grid(config.grid_size, indexing, config.rope_grid_offset, config.rope_ref_grid)
    angles = (points.unsqueeze(-1) * bands).flatten(1)[None, None]
    return angles.sin(), angles.cos()


def turns(count: int, section: tuple[int, int, int]) -> list[int]:
    """The axis of each of `count` frequencies: 0, 1, 2, 0, 1, 2, ..., and 0 for an axis that has had its share."""
    return [j % 3 if j < 3 * section[j % 3] else 0 for j in range(count)]


def _mesh(axes: list[Tensor], indexing: str) -> Tensor:
    points = torch.cartesian_prod(*axes)  # (N, 2), row by row
    return points if indexing == "ij" else points.flip(-1)
