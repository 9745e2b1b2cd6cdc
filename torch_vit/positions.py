r"""Positions inside attention: qk-norm and rotation of query and key, and the bias on the scores, block by block."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from torch_vit.norm import norm_forward
from torch_vit.rel_pos_bias import rel_pos_bias_forward
from torch_vit.rope import rope_forward
from torch_vit.table_resize import table_resize_forward
from vit_common.config import ViTConfig
from vit_common.params import sub


class Positions(NamedTuple):
    """What a block's attention knows of the places of its tokens."""

    layer: int = 0
    sin: Tensor | None = None  # rotary table, (B or 1, NH or 1, N, HD/2)
    cos: Tensor | None = None
    bias: Tensor | None = None  # added to the scores, broadcasts to (B, NH, T, T): masks, shared relative positions
    grid: tuple[int, int] | None = None  # the image's patches; None: as the configuration has it


def turn(x: Tensor, config: ViTConfig, positions: Positions) -> Tensor:
    """Query or key (B, NH, T, HD), turned by the rotary table if there is one."""
    if positions.sin is None or positions.cos is None:
        return x
    return rope_forward(x, positions.sin, positions.cos, x.shape[2] - positions.sin.shape[2], config.rope_half)


def qk_positions_forward(
    params: Mapping[str, Tensor], q: Tensor, k: Tensor, config: ViTConfig, positions: Positions
) -> tuple[Tensor, Tensor]:
    """q (B, NH, T, HD), k (B, KH, T, HD) -> the same, normalised over each head and turned."""
    if config.qk_norm:
        q = norm_forward(sub(params, "q_norm"), q, config.norm, config.norm_eps)
        k = norm_forward(sub(params, "k_norm"), k, config.norm, config.norm_eps)
    return turn(q, config, positions), turn(k, config, positions)


def table_bias_forward(table: Tensor, config: ViTConfig, grid: tuple[int, int] | None = None) -> Tensor:
    """table (R, NH) of the grid that it is stored for -> bias (1, NH, T, T) on the image's grid."""
    grid = grid or config.grid_size
    return rel_pos_bias_forward(table_resize_forward(table, config.stored_grid, grid, config.table_resize), grid)


def block_bias_forward(table: Tensor | None, config: ViTConfig, positions: Positions) -> Tensor | None:
    """table (R, NH) -> the block's own bias plus what all blocks share, (1 or B, NH, T, T)."""
    if table is None:
        return positions.bias
    own = table_bias_forward(table, config, positions.grid)
    return own if positions.bias is None else own + positions.bias
