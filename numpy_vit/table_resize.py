r"""Tables of relative positions learned for one grid of patches, resized to another, and the adjoint."""

from typing import NamedTuple

import numpy as np

from numpy_vit.resize_matrix import resize_matrix
from vit_common.errors import check_shape

Array = np.ndarray
EXTRA = 3  # rows of the class token, which stay


class TableResizeCache(NamedTuple):
    rows: Array | None  # (2h' - 1, 2h - 1); None: nothing was resized
    columns: Array | None  # (2w' - 1, 2w - 1)
    y_shape: tuple[int, int]  # (R', NH)


def table_resize_forward(
    table: Array, old: tuple[int, int], new: tuple[int, int], rule: str
) -> tuple[Array, TableResizeCache]:
    r"""(R, NH) -> (R', NH) with $R = (2h-1)(2w-1) + 3$.

    A table is a picture of displacements, so it is resized as positions are, axis by axis:
    $t'_{ij} = \sum_{uv} R_{iu} C_{jv} t_{uv}$. "timm_geometric" lays the old displacements where BEiT does, at the
    partial sums of a geometric series that reach the new border - dense near the patch, sparse far from it - and
    interpolates linearly (BEiT by cubics); "huggingface_bilinear" spaces them evenly, and mixes up rows and columns
    unless the grid is square. **Backward**: both matrices transposed.

    Raises:
        ShapeError: the table is not that of the old grid.
        ConfigError: an unknown rule.
    """
    (old_h, old_w), (new_h, new_w) = ((2 * h - 1, 2 * w - 1) for h, w in (old, new))
    check_shape("relative position table", table, (old_h * old_w + EXTRA, "NH"))
    if rule == "huggingface_bilinear":  # it reads a table as that of the grid on its side
        old_h, old_w = old_w, old_h
    if (old_h, old_w) == (new_h, new_w):
        return table, TableResizeCache(None, None, table.shape)
    rows, columns = (table_matrix(m, n, rule).astype(table.dtype) for m, n in ((new_h, old_h), (new_w, old_w)))
    y = _apply(table, rows, columns)
    return y, TableResizeCache(rows, columns, y.shape)


def table_resize_backward(dy: Array, cache: TableResizeCache) -> Array:
    """(R', NH) -> dtable (R, NH)."""
    rows, columns, y_shape = cache
    check_shape("dy of table_resize", dy, y_shape)
    return dy if rows is None or columns is None else _apply(dy, rows.T, columns.T)  # y = rows @ table @ columns.T


def table_matrix(new: int, old: int, rule: str) -> Array:
    """(new, old) in float64: row i holds the weights of the old displacements in new displacement i.

    Raises:
        ConfigError: an unknown rule.
    """
    if rule != "timm_geometric":
        return resize_matrix(new, old, rule)
    places, wanted = series_places(old // 2, new // 2), np.arange(new) - float(new // 2)
    return np.stack([np.interp(wanted, places, one) for one in np.eye(old)], axis=1)  # beyond the border: the border


def series_places(count: int, reach: int) -> Array:
    r"""Places (2 count + 1,) of the old displacements: 0 and $\pm(1 + q + \dots + q^i)$.

    The ratio $q \in [1.01, 1.5]$ for which `count` terms reach `reach` is found by bisection to $10^{-6}$, as in the
    program that published the rule: that precision is part of it.
    """
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2.0
        low, high = (low, ratio) if (1.0 - ratio**count) / (1.0 - ratio) > reach else (ratio, high)
    sums = np.cumsum([ratio**i for i in range(count)])
    return np.concatenate((-sums[::-1], [0.0], sums))


def _apply(table: Array, rows: Array, columns: Array) -> Array:
    """(R, NH) -> (R', NH)."""
    (height, width), heads = (rows.shape[1], columns.shape[1]), table.shape[1]
    grid = rows @ table[:-EXTRA].reshape(height, width * heads)  # (h', w NH)
    grid = columns @ grid.reshape(len(rows), width, heads)  # (h', w', NH)
    return np.concatenate((grid.reshape(-1, heads), table[-EXTRA:]))
