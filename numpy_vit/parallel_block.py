r"""Attention and MLP in parallel from one norm and one projection."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.activation import ActivationCache, activation_backward, activation_forward
from numpy_vit.biased_attention import BiasedAttentionCache, biased_attention_backward, biased_attention_forward
from numpy_vit.diff_attention import DiffAttentionCache, diff_attention_backward, diff_attention_forward
from numpy_vit.dropout import (
    DropoutCache,
    drop_path_backward,
    drop_path_forward,
    dropout_backward,
    dropout_forward,
)
from numpy_vit.layer_scale import LayerScaleCache, layer_scale_backward, layer_scale_forward
from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from numpy_vit.multi_head import merge_heads, split_heads
from numpy_vit.norm import NormCache, norm_backward, norm_forward
from numpy_vit.positions import Positions, PositionsGrad, QkPositionsCache, qk_positions_backward, qk_positions_forward
from vit_common.assembled_spec import parallel_spec
from vit_common.config import ViTConfig
from vit_common.errors import check_names
from vit_common.params import sub, under
from vit_common.part_names import names_of
from vit_common.tape import Tape, note

Array = np.ndarray


class ParallelBlockCache(NamedTuple):
    norm: NormCache
    in_proj: LinearCache
    mlp_bias: bool
    width: int
    positions: QkPositionsCache
    attention: BiasedAttentionCache | DiffAttentionCache
    act: ActivationCache
    mlp_drop: DropoutCache
    out: tuple[LinearCache, ...]  # of attention and MLP, or of both side by side
    scale: LayerScaleCache | None
    path: DropoutCache


def parallel_block_forward(
    params: Mapping[str, Array], x: Array, config: ViTConfig, positions: Positions = Positions(),  # noqa: B008
    masks: Mapping[str, Array] | None = None, drop_path_rate: float = 0.0, tape: Tape = None,
) -> tuple[Array, ParallelBlockCache]:  # fmt: skip
    r"""(B, T, D) -> (B, T, D).

    $$[h, Q, K, V] = \operatorname{norm}(x)\, W_\mathrm{in}^\top, \qquad
      y = x + \gamma \odot \bigl(\operatorname{attn}(Q, K, V)\, W_a^\top + \phi(h)\, W_m^\top\bigr)$$

    Dehghani et al. 2023 (ViT-22B), section 2; biases, `q_norm`, `k_norm`, rotation and dropout are left out of the
    formula. Parameters: `in_norm.*`, `in_proj.*` (M + 3A, D), A = NH * HD, with its bias or else `mlp_bias` (M,),
    `q_norm.*`, `k_norm.*`, then `attn_out_proj.*` and `mlp_out_proj.*`, or `out_proj.*` (D, A + M) of both side by side
    (with differential attention), `ls.gamma`. Masks: `attn_drop`, `mlp_drop` (B, T, M), `drop_path` (B,).
    **Backward**: what the projection split, the backward concatenates.
    """
    check_names("parallel_block", params, names_of(parallel_spec, config, positions.layer))
    masks, heads, diff = masks or {}, config.num_heads, config.uses_diff_attention
    normed, c_norm = norm_forward(sub(params, "in_norm"), x, config.norm, config.norm_eps)
    inner, c_in = linear_forward(normed, params["in_proj.weight"], params.get("in_proj.bias"))  # (B, T, M + 3A)
    width, hidden = config.attn_dim, config.mlp_dim
    h, *qkv = np.split(inner, [hidden, hidden + width, hidden + 2 * width], axis=-1)
    if "mlp_bias" in params:
        h = h + params["mlp_bias"]
    count = (2 * heads, 2 * heads, heads) if diff else (heads,) * 3
    q, k, v = (split_heads(part, n) for part, n in zip(qkv, count, strict=True))
    q, k, c_pos = qk_positions_forward(params, q, k, config, positions, tape)
    drop = masks.get("attn_drop"), config.attn_drop_rate, tape
    c_attention: BiasedAttentionCache | DiffAttentionCache
    if diff:
        y, c_attention = diff_attention_forward(params, q, k, v, positions.layer, positions.bias, *drop)
    else:
        y, c_attention = biased_attention_forward(q, k, v, positions.bias, *drop)
    context = merge_heads(y)  # (B, T, A)
    act, c_act = activation_forward(h, config.activation)
    m, c_drop = dropout_forward(act, masks.get("mlp_drop"), config.proj_drop_rate)
    note(tape, in_norm=normed, in_proj=inner, q=q, k=k, v=v, context=context, mlp_act=act)
    ways = {"attn_out_proj": context, "mlp_out_proj": m}
    if diff:
        ways = {"out_proj": np.concatenate((context, m), axis=-1)}
    outs = [linear_forward(part, params[f"{n}.weight"], params.get(f"{n}.bias")) for n, part in ways.items()]
    note(tape, **{name: out for name, (out, _) in zip(ways, outs, strict=True)})
    y = outs[0][0] if diff else outs[0][0] + outs[1][0]
    c_scale = None
    if "ls.gamma" in params:
        y, c_scale = layer_scale_forward(y, params["ls.gamma"])
        note(tape, ls=y)
    y, c_path = drop_path_forward(y, masks.get("drop_path"), drop_path_rate)
    linears = tuple(cache for _, cache in outs)
    inside = c_norm, c_in, "mlp_bias" in params, width, c_pos, c_attention, c_act, c_drop
    return x + y, ParallelBlockCache(*inside, linears, c_scale, c_path)


def parallel_block_backward(
    dy: Array, cache: ParallelBlockCache, tape: Tape = None
) -> tuple[Array, PositionsGrad, dict[str, Array]]:
    """(B, T, D) -> dx (B, T, D), gradients of the positions and of the parameters."""
    grads: dict[str, Array] = {}
    dout = drop_path_backward(dy, cache.path)
    if cache.scale is not None:
        note(tape, ls=dout)
        dout, g = layer_scale_backward(dout, cache.scale)
        grads |= under("ls", g)
    diff = isinstance(cache.attention, DiffAttentionCache)
    names = ("out_proj",) if diff else ("attn_out_proj", "mlp_out_proj")
    note(tape, **dict.fromkeys(names, dout))
    back = [linear_backward(dout, linear) for linear in cache.out]
    for name, (_, g) in zip(names, back, strict=True):
        grads |= under(name, g)
    dcontext, dm = np.split(back[0][0], [cache.width], axis=-1) if diff else (back[0][0], back[1][0])
    dact = dropout_backward(dm, cache.mlp_drop)
    dh = activation_backward(dact, cache.act)  # act = phi(h)
    if cache.mlp_bias:
        grads["mlp_bias"] = dh.sum(axis=(0, 1))  # h = h + mlp_bias
    if isinstance(cache.attention, DiffAttentionCache):
        dheads = split_heads(dcontext, cache.attention.o2.shape[1])  # context = merge_heads(heads)
        dq, dk, dv, dbias, g = diff_attention_backward(dheads, cache.attention, tape)
        grads |= g
    else:
        dheads = split_heads(dcontext, cache.attention.q.shape[1])
        dq, dk, dv, dbias = biased_attention_backward(dheads, cache.attention, tape)
    note(tape, q=dq, k=dk, v=dv, context=dcontext, mlp_act=dact)
    dq, dk, dsin, dcos, g = qk_positions_backward(dq, dk, cache.positions, tape)
    dinner = np.concatenate((dh, *(merge_heads(d) for d in (dq, dk, dv))), axis=-1)  # h, q, k, v = split(inner)
    dnormed, g_in = linear_backward(dinner, cache.in_proj)
    dx, g_norm = norm_backward(dnormed, cache.norm)
    note(tape, in_norm=dnormed, in_proj=dinner)
    grads |= g | under("in_proj", g_in) | under("in_norm", g_norm)
    return dx + dy, PositionsGrad(dsin, dcos, dbias), grads  # y = x + ...: x forks
