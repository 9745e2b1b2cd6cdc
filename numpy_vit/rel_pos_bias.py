r"""Relative position bias: a learned number for each head and displacement of two patches, added to the score."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import check_shape

Array = np.ndarray


class RelPosBiasCache(NamedTuple):
    row: Array  # (T, T) of int, the row of the table that each score has
    table_shape: tuple[int, int]  # (R, NH)


def rel_pos_index(grid: tuple[int, int]) -> Array:
    r"""Row of the table for each (query, key), (1 + N, 1 + N) of int.

    Displacement $(\Delta y, \Delta x)$ of two patches: $(\Delta y + h - 1)(2w - 1) + \Delta x + w - 1$; then three more
    rows: class token to patch, patch to class token, class token to itself.
    """
    height, width = grid
    count = (2 * height - 1) * (2 * width - 1)
    y, x = np.divmod(np.arange(height * width), width)
    dy, dx = y[:, None] - y, x[:, None] - x  # (N, N), query less key
    index = np.empty((1 + height * width,) * 2, dtype=np.int64)
    index[1:, 1:] = (dy + height - 1) * (2 * width - 1) + dx + width - 1
    index[0, :], index[:, 0], index[0, 0] = count, count + 1, count + 2
    return index


def rel_pos_bias_forward(table: Array, grid: tuple[int, int]) -> tuple[Array, RelPosBiasCache]:
    r"""table (R, NH) with $R = (2h-1)(2w-1) + 3$ -> bias (1, NH, 1 + N, 1 + N), $b_{nqk} = \mathrm{table}_{i(q,k),n}$.

    Bao et al. 2021 (BEiT), after Raffel et al. 2020 (one number a head and displacement) and Liu et al. 2021 (Swin,
    eq. 4: in two dimensions). **Backward**: a look-up's adjoint adds up what each row gave.

    Raises:
        ShapeError: the table has another number of rows.
    """
    height, width = grid
    check_shape("relative position table", table, ((2 * height - 1) * (2 * width - 1) + 3, "NH"))
    index = rel_pos_index(grid)
    return table[index].transpose(2, 0, 1)[None], RelPosBiasCache(index, table.shape)


def rel_pos_bias_backward(dbias: Array, cache: RelPosBiasCache) -> Array:
    """(1, NH, T, T) -> dtable (R, NH)."""
    row, (count, heads) = cache
    check_shape("dbias of rel_pos_bias", dbias, (1, heads, *row.shape))
    rows = dbias[0].transpose(1, 2, 0).reshape(-1, heads)  # (T*T, NH)
    order = np.argsort(row.reshape(-1), kind="stable")
    first = np.searchsorted(row.reshape(-1)[order], np.arange(count))  # every row is used: no empty runs
    return np.add.reduceat(rows[order], first, axis=0)  # bias = table[index]
