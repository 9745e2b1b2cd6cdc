r"""Positions learned for one grid of patches, resized to another: each library by its own rule, and the adjoint."""

from typing import NamedTuple

import numpy as np

from numpy_vit.resize_matrix import resize_matrix
from vit_common.errors import check_shape

Array = np.ndarray


class PosResizeCache(NamedTuple):
    rows: Array | None  # (H', H); None: nothing was resized
    columns: Array | None  # (W', W)
    prefix: int
    y_shape: tuple[int, int, int]


def pos_resize_forward(
    pos_embed: Array, old: tuple[int, int], new: tuple[int, int], rule: str, prefix: int = 0
) -> tuple[Array, PosResizeCache]:
    r"""(1, T, D) -> (1, S, D) with $T = P + HW$, $S = P + H'W'$; the P rows of the prefix tokens stay.

    $$p'_{ijd} = \sum_{uv} R_{iu}\, C_{jv}\, p_{uvd}$$

    Interpolation along an axis is a matrix that the rule and the two sizes determine: linear in the positions, and its
    **backward** is the same with both matrices transposed: positions can be trained through it.

    Raises:
        ShapeError: the positions are not those of the old grid.
        ConfigError: an unknown rule, where the grids differ.
    """
    check_shape("pos_embed", pos_embed, (1, prefix + old[0] * old[1], "D"))
    if new == old:  # nothing is resized, though dino's rule would move even these
        return pos_embed, PosResizeCache(None, None, prefix, pos_embed.shape)
    rows, columns = (resize_matrix(m, n, rule).astype(pos_embed.dtype) for m, n in zip(new, old, strict=True))
    patches = _apply(pos_embed[:, prefix:], rows, columns)
    y = np.concatenate((pos_embed[:, :prefix], patches), axis=1)
    return y, PosResizeCache(rows, columns, prefix, y.shape)


def pos_resize_backward(dy: Array, cache: PosResizeCache) -> Array:
    """(1, S, D) -> dpos_embed (1, T, D)."""
    rows, columns, prefix, y_shape = cache
    check_shape("dy of pos_resize", dy, y_shape)
    if rows is None or columns is None:
        return dy
    patches = _apply(dy[:, prefix:], rows.T, columns.T)  # patches = rows @ pos @ columns.T
    return np.concatenate((dy[:, :prefix], patches), axis=1)


def _apply(patches: Array, rows: Array, columns: Array) -> Array:
    """(1, H W, D) -> (1, H' W', D)."""
    height, width, depth = rows.shape[1], columns.shape[1], patches.shape[-1]
    grid = rows @ patches.reshape(height, width * depth)  # (H', W D)
    grid = columns @ grid.reshape(len(rows), width, depth)  # (H', W', D)
    return grid.reshape(1, -1, depth)
