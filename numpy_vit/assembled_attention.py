r"""Multi-head attention with everything that variants put into it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.biased_attention import BiasedAttentionCache, biased_attention_backward, biased_attention_forward
from numpy_vit.diff_attention import DiffAttentionCache, diff_attention_backward, diff_attention_forward
from numpy_vit.dropout import DropoutCache, dropout_backward, dropout_forward
from numpy_vit.grouped_query import GroupedQueryCache, grouped_query_backward, grouped_query_forward
from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from numpy_vit.multi_head import merge_heads, split_heads
from numpy_vit.norm import NormCache, norm_backward, norm_forward
from numpy_vit.positions import (
    Positions,
    PositionsGrad,
    QkPositionsCache,
    TableBiasCache,
    block_bias_backward,
    block_bias_forward,
    qk_positions_backward,
    qk_positions_forward,
)
from numpy_vit.qkv_project import QkvProjectCache, qkv_project_backward, qkv_project_forward
from vit_common.config import ViTConfig
from vit_common.params import sub, under
from vit_common.tape import Tape, note

Array = np.ndarray


class AssembledAttentionCache(NamedTuple):
    qkv: QkvProjectCache
    positions: QkPositionsCache
    k_groups: GroupedQueryCache
    v_groups: GroupedQueryCache
    table: TableBiasCache | None
    attention: BiasedAttentionCache | DiffAttentionCache
    norm: NormCache | None
    proj: LinearCache | None
    drop: DropoutCache


def assembled_attention_forward(
    params: Mapping[str, Array], x: Array, config: ViTConfig, positions: Positions,
    masks: Mapping[str, Array] | None = None, tape: Tape = None,
) -> tuple[Array, AssembledAttentionCache]:  # fmt: skip
    r"""(B, T, D) -> (B, T, D): project, norm and turn query and key, share keys and values, attend, norm, project.

    $$y = \operatorname{norm}\bigl([O_1, \dots, O_{NH}]\bigr) W_o^\top + b_o, \qquad
      O_h = \operatorname{attention}(R\,\hat Q_h, R\,\hat K_{g(h)}, V_{g(h)};\, b_h)$$

    with $\hat{}$ the norm over a head, $R$ the rotation, $g$ the group of a head, $b$ the bias on the scores, and
    dropout of the probabilities and at the end. Which of these there are, the configuration and the parameters say:
    `qkv.*` or `q_proj.*` ..., `q_norm.*`, `k_norm.*`, `relative_position_bias_table`, `lambda_*` and `sub_norm.weight`,
    `norm.*`, `proj.*`. Masks: `attn_drop`, `proj_drop`. **Backward**: the stages in reverse order; rotary tables and
    bias get their gradients too.

    Raises:
        ShapeError, DtypeError, RangeError: a parameter, a mask or the positions do not fit x.
    """
    masks, heads, diff = masks or {}, config.num_heads, config.attention == "diff"
    kv = config.kv_heads[positions.layer]
    (q, k, v), c_qkv = qkv_project_forward(params, x, (2 * heads, 2 * heads, heads) if diff else (heads, kv, kv), tape)
    q, k, c_pos = qk_positions_forward(params, q, k, config, positions, tape)
    k, c_k = grouped_query_forward(k, q.shape[1])
    v, c_v = grouped_query_forward(v, heads)
    note(tape, q=q, k=k, v=v)
    table = params.get("relative_position_bias_table")
    bias, c_table = block_bias_forward(table, config, positions)
    drop = masks.get("attn_drop"), config.attn_drop_rate
    c_attention: BiasedAttentionCache | DiffAttentionCache
    if diff:
        y, c_attention = diff_attention_forward(params, q, k, v, positions.layer, bias, *drop, tape)
    else:
        y, c_attention = biased_attention_forward(q, k, v, bias, *drop, tape)
    y = merge_heads(y)  # (B, T, NH*HD)
    note(tape, context=y)
    c_norm = c_proj = None
    if config.attn_norm:
        y, c_norm = norm_forward(sub(params, "norm"), y, config.norm, config.norm_eps)
        note(tape, norm=y)
    if config.attn_proj:
        y, c_proj = linear_forward(y, params["proj.weight"], params.get("proj.bias"))
        note(tape, proj=y)
    y, c_drop = dropout_forward(y, masks.get("proj_drop"), config.proj_drop_rate)
    return y, AssembledAttentionCache(c_qkv, c_pos, c_k, c_v, c_table, c_attention, c_norm, c_proj, c_drop)


def assembled_attention_backward(
    dy: Array, cache: AssembledAttentionCache, tape: Tape = None
) -> tuple[Array, PositionsGrad, dict[str, Array]]:
    """(B, T, D) -> dx (B, T, D), gradients of the positions, gradients of the parameters."""
    grads: dict[str, Array] = {}
    dy = dropout_backward(dy, cache.drop)
    if cache.proj is not None:
        note(tape, proj=dy)
        dy, g = linear_backward(dy, cache.proj)  # y = norm(context) @ proj.T + bias
        grads |= under("proj", g)
    if cache.norm is not None:
        note(tape, norm=dy)
        dy, g = norm_backward(dy, cache.norm)
        grads |= under("norm", g)
    note(tape, context=dy)
    if isinstance(cache.attention, DiffAttentionCache):
        dheads = split_heads(dy, cache.attention.o2.shape[1])  # context = merge_heads(heads)
        dq, dk, dv, dbias, g = diff_attention_backward(dheads, cache.attention, tape)
        grads |= g
    else:
        dheads = split_heads(dy, cache.attention.q.shape[1])
        dq, dk, dv, dbias = biased_attention_backward(dheads, cache.attention, tape)
    note(tape, q=dq, k=dk, v=dv)
    dk, dv = grouped_query_backward(dk, cache.k_groups), grouped_query_backward(dv, cache.v_groups)
    dq, dk, dsin, dcos, g = qk_positions_backward(dq, dk, cache.positions, tape)
    dtable, dbias = block_bias_backward(dbias, cache.table)
    if dtable is not None:
        grads["relative_position_bias_table"] = dtable
    dx, g_qkv = qkv_project_backward(dq, dk, dv, cache.qkv, tape)
    return dx, PositionsGrad(dsin, dcos, dbias), {**grads, **g, **g_qkv}
