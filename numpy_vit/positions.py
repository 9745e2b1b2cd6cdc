r"""Positions inside attention: qk-norm and rotation of query and key, and the bias on the scores, block by block."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.norm import NormCache, norm_backward, norm_forward
from numpy_vit.rel_pos_bias import RelPosBiasCache, rel_pos_bias_backward, rel_pos_bias_forward
from numpy_vit.rope import RopeCache, rope_backward, rope_forward
from numpy_vit.table_resize import TableResizeCache, table_resize_backward, table_resize_forward
from vit_common.config import ViTConfig
from vit_common.errors import check_shape
from vit_common.params import sub, under
from vit_common.tape import Tape, note

Array = np.ndarray


class Positions(NamedTuple):
    """What a block's attention knows of the places of its tokens."""

    layer: int = 0
    sin: Array | None = None  # rotary table, (B or 1, NH or 1, N, HD/2)
    cos: Array | None = None
    bias: Array | None = None  # added to the scores, broadcasts to (B, NH, T, T): masks, shared relative positions
    grid: tuple[int, int] | None = None  # the image's patches; None: as the configuration has it


class PositionsGrad(NamedTuple):
    sin: Array | None
    cos: Array | None
    bias: Array | None


class QkPositionsCache(NamedTuple):
    norms: tuple[NormCache, NormCache] | None
    ropes: tuple[RopeCache, RopeCache] | None
    shapes: tuple[tuple[int, ...], tuple[int, ...]]  # of q and k


def qk_positions_forward(
    params: Mapping[str, Array], q: Array, k: Array, config: ViTConfig, positions: Positions, tape: Tape = None
) -> tuple[Array, Array, QkPositionsCache]:
    r"""q (B, NH, T, HD), k (B, KH, T, HD) -> $R\,\hat q$, $R\,\hat k$ of the same shapes: normalised over each head
    (Dehghani et al. 2023, ViT-22B, eq. 4), then turned.

    Parameters with `qk_norm`: `q_norm.*`, `k_norm.*`. **Backward**: both turn by one table, whose gradients add up.
    """
    norms = ropes = None
    if config.qk_norm:
        q, c_q = norm_forward(sub(params, "q_norm"), q, config.norm, config.norm_eps)
        k, c_k = norm_forward(sub(params, "k_norm"), k, config.norm, config.norm_eps)
        norms = c_q, c_k
        note(tape, q_norm=q, k_norm=k)
    if positions.sin is not None and positions.cos is not None:
        prefix = q.shape[2] - positions.sin.shape[2]
        q, r_q = rope_forward(q, positions.sin, positions.cos, prefix, config.rope_half)
        k, r_k = rope_forward(k, positions.sin, positions.cos, prefix, config.rope_half)
        ropes = r_q, r_k
    return q, k, QkPositionsCache(norms, ropes, (q.shape, k.shape))


def qk_positions_backward(
    dq: Array, dk: Array, cache: QkPositionsCache, tape: Tape = None
) -> tuple[Array, Array, Array | None, Array | None, dict[str, Array]]:
    """dq (B, NH, T, HD), dk (B, KH, T, HD) -> the same before norm and rotation, dsin, dcos, gradients of the norms."""
    check_shape("dq of qk_positions", dq, cache.shapes[0])
    check_shape("dk of qk_positions", dk, cache.shapes[1])
    dsin = dcos = None
    grads: dict[str, Array] = {}
    if cache.ropes is not None:
        dq, dsin_q, dcos_q = rope_backward(dq, cache.ropes[0])
        dk, dsin_k, dcos_k = rope_backward(dk, cache.ropes[1])
        dsin, dcos = dsin_q + dsin_k, dcos_q + dcos_k  # one table for both
    if cache.norms is not None:
        note(tape, q_norm=dq, k_norm=dk)
        dq, g_q = norm_backward(dq, cache.norms[0])
        dk, g_k = norm_backward(dk, cache.norms[1])
        grads = {**under("q_norm", g_q), **under("k_norm", g_k)}
    return dq, dk, dsin, dcos, grads


class TableBiasCache(NamedTuple):
    resize: TableResizeCache
    bias: RelPosBiasCache


def table_bias_forward(
    table: Array, config: ViTConfig, grid: tuple[int, int] | None = None
) -> tuple[Array, TableBiasCache]:
    """table (R, NH) of the grid that it is stored for -> bias (1, NH, T, T) on the image's grid."""
    grid = grid or config.grid_size
    table, c_resize = table_resize_forward(table, config.stored_grid, grid, config.table_resize)
    bias, c_bias = rel_pos_bias_forward(table, grid)
    return bias, TableBiasCache(c_resize, c_bias)


def table_bias_backward(dbias: Array, cache: TableBiasCache) -> Array:
    """(1 or B, NH, T, T) -> dtable (R, NH)."""
    check_shape("dbias of table_bias", dbias, ("B", "NH", "T", "T"))
    one = dbias if len(dbias) == 1 else dbias.sum(axis=0, keepdims=True)  # one table for all images
    return table_resize_backward(rel_pos_bias_backward(one, cache.bias), cache.resize)


def block_bias_forward(
    table: Array | None, config: ViTConfig, positions: Positions
) -> tuple[Array | None, TableBiasCache | None]:
    r"""table (R, NH) -> $b = b_\mathrm{block} + b_\mathrm{shared}$, (1 or B, NH, T, T): what is added to the scores."""
    if table is None:
        return positions.bias, None
    bias, cache = table_bias_forward(table, config, positions.grid)
    return (bias if positions.bias is None else bias + positions.bias), cache


def block_bias_backward(dbias: Array | None, cache: TableBiasCache | None) -> tuple[Array | None, Array | None]:
    """dbias (1 or B, NH, T, T) -> the table's gradient (R, NH), and that of the shared part."""
    if cache is None or dbias is None:
        return None, dbias
    return table_bias_backward(dbias, cache), dbias
