r"""Relative position bias: a learned number for each head and displacement of two patches, added to the score."""

import torch
from torch import Tensor

from vit_common.errors import check_shape


def rel_pos_index(grid: tuple[int, int]) -> Tensor:
    """Row of the table for each (query, key), (1 + N, 1 + N) of int; the last three rows serve the class token."""
    height, width = grid
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width))  # (N, 2)
    dy, dx = (places[:, None] - places[None]).unbind(-1)  # (N, N), query less key
    count = (2 * height - 1) * (2 * width - 1)
    index = torch.full((1 + len(places),) * 2, count + 1)  # patch to class token
    index[0] = count  # class token to patch
    index[0, 0] = count + 2
    index[1:, 1:] = (dy + height - 1) * (2 * width - 1) + dx + width - 1
    return index


def rel_pos_bias_forward(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """table (R, NH) with R = (2h - 1)(2w - 1) + 3 -> bias (1, NH, 1 + N, 1 + N).

    Raises:
        ShapeError: the table has another number of rows.
    """
    height, width = grid
    check_shape("relative position table", table, ((2 * height - 1) * (2 * width - 1) + 3, "NH"))
    return table[rel_pos_index(grid).to(table.device)].permute(2, 0, 1).unsqueeze(0)
