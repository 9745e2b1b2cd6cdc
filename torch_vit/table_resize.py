r"""Tables of relative positions learned for one grid of patches, resized to another."""

import torch
from torch import Tensor

from torch_vit.resize_matrix import resize_matrix
from vit_common.errors import check_shape

EXTRA = 3  # rows of the class token, which stay


def table_resize_forward(table: Tensor, old: tuple[int, int], new: tuple[int, int], rule: str) -> Tensor:
    """(R, NH) -> (R', NH) with R = (2h - 1)(2w - 1) + 3.

    Raises:
        ShapeError: the table is not that of the old grid.
    """
    (old_h, old_w), (new_h, new_w) = ((2 * h - 1, 2 * w - 1) for h, w in (old, new))
    check_shape("relative position table", table, (old_h * old_w + EXTRA, "NH"))
    if rule == "huggingface_bilinear":  # it reads a table as that of the grid on its side
        old_h, old_w = old_w, old_h
    if (old_h, old_w) == (new_h, new_w):
        return table
    rows, columns = table_matrix(new_h, old_h, rule).to(table), table_matrix(new_w, old_w, rule).to(table)
    grid = torch.einsum("iu,jv,uvh->ijh", rows, columns, table[:-EXTRA].unflatten(0, (old_h, old_w)))
    return torch.cat((grid.flatten(0, 1), table[-EXTRA:]))


def table_matrix(new: int, old: int, rule: str) -> Tensor:
    """(new, old) in float64: row i holds the weights of the old displacements in new displacement i.

    Raises:
        ConfigError: an unknown rule.
    """
    if rule != "timm_geometric":
        return resize_matrix(new, old, rule)
    places, wanted = series_places(old // 2, new // 2), torch.arange(new, dtype=torch.float64) - new // 2
    wanted = wanted.clamp(places[0], places[-1])  # beyond the border: the border
    left = (torch.searchsorted(places, wanted, right=True) - 1).clamp(0, max(old - 2, 0))
    matrix = torch.zeros(new, old, dtype=torch.float64)
    if old == 1:
        return matrix + 1.0
    share = (wanted - places[left]) / (places[left + 1] - places[left])
    at = torch.arange(new)
    matrix[at, left], matrix[at, left + 1] = 1.0 - share, share
    return matrix


def series_places(count: int, reach: int) -> Tensor:
    """Places (2 count + 1,) of the old displacements: 0 and +-(1 + q + ... + q^i), the ratio q by halving."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2.0
        low, high = (low, ratio) if (1.0 - ratio**count) / (1.0 - ratio) > reach else (ratio, high)
    sums = torch.tensor([ratio**i for i in range(count)], dtype=torch.float64).cumsum(0)
    return torch.cat((-sums.flip(0), torch.zeros(1, dtype=torch.float64), sums))
