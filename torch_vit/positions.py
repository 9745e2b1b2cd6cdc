r"""Positions inside attention: qk-norm and rotation of query and key, and the bias on the scores, block by block."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from torch_vit.norm import norm_forward
from torch_vit.rel_pos_bias import rel_pos_bias_forward
from torch_vit.rope import rope_forward
from vit_common.config import ViTConfig
from vit_common.params import sub


class Positions(NamedTuple):
    """What a block's attention knows of the places of its tokens."""

    layer: int = 0
    sin: Tensor | None = None  # rotary table, (B or 1, NH or 1, N, HD/2)
    cos: Tensor | None = None
    bias: Tensor | None = None  # added to the scores, broadcasts to (B, NH, T, T): masks, shared relative positions


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


def block_bias_forward(table: Tensor | None, grid: tuple[int, int], positions: Positions) -> Tensor | None:
    """table (R, NH) -> the block's own bias plus what all blocks share, (1 or B, NH, T, T)."""
    if table is None:
        return positions.bias
    own = rel_pos_bias_forward(table, grid)
    return own if positions.bias is None else own + positions.bias
