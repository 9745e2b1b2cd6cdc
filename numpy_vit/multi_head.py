r"""Multi-head self-attention with a fused query-key-value map."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.attention import AttentionCache, attention_backward, attention_forward
from numpy_vit.dropout import DropoutCache, dropout_backward, dropout_forward
from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from vit_common.config import ViTConfig
from vit_common.errors import check_names
from vit_common.params import under
from vit_common.part_names import MULTI_HEAD
from vit_common.tape import Tape, note

Array = np.ndarray


class MultiHeadCache(NamedTuple):
    qkv: LinearCache
    attention: AttentionCache
    proj: LinearCache
    proj_drop: DropoutCache


def split_heads(x: Array, num_heads: int) -> Array:
    """(B, T, NH*HD) -> (B, NH, T, HD), a view: head h reads the columns h*HD to (h+1)*HD."""
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, num_heads, width // num_heads).transpose(0, 2, 1, 3)


def merge_heads(x: Array) -> Array:
    """(B, NH, T, HD) -> (B, T, NH*HD), the inverse of `split_heads`."""
    batch, heads, tokens, head_dim = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * head_dim)


def multi_head_forward(
    params: Mapping[str, Array],
    x: Array,
    config: ViTConfig,
    masks: Mapping[str, Array] | None = None,
    tape: Tape = None,
) -> tuple[Array, MultiHeadCache]:
    r"""(B, T, D) -> (B, T, D).

    $$[Q, K, V] = x W_{qkv}^\top + b_{qkv}, \qquad O_h = \operatorname{attention}(Q_h, K_h, V_h), \qquad
      y = [O_1, \dots, O_{NH}]\, W_o^\top + b_o$$

    Vaswani et al. 2017, section 3.2.2. Parameters: `qkv.weight` (3D, D), `qkv.bias` (3D,), `proj.weight` (D, D),
    `proj.bias` (D,). Masks: `attn_drop` (B, NH, T, T), `proj_drop` (B, T, D).

    **Backward**: that of each stage in reverse order; Q, K and V are three slices of one product, so their gradients
    are laid side by side and go through it together. The key's bias adds the same number to a whole row of scores,
    which the softmax cancels: in exact arithmetic its gradient is zero.

    Raises:
        CheckpointError: a parameter is missing or unknown.
        ShapeError: a parameter or mask does not fit x.
        DtypeError, RangeError: as of `dropout_forward`.
    """
    check_names("multi_head", params, MULTI_HEAD)
    masks = masks or {}
    qkv, c_qkv = linear_forward(x, params["qkv.weight"], params["qkv.bias"])  # (B, T, 3D)
    q, k, v = (split_heads(part, config.num_heads) for part in np.split(qkv, 3, axis=-1))  # (B, NH, T, HD) each
    note(tape, qkv=qkv, q=q, k=k, v=v)
    heads, c_attention = attention_forward(q, k, v, masks.get("attn_drop"), config.attn_drop_rate, tape)
    context = merge_heads(heads)  # (B, T, D)
    out, c_proj = linear_forward(context, params["proj.weight"], params["proj.bias"])
    y, c_drop = dropout_forward(out, masks.get("proj_drop"), config.proj_drop_rate)
    note(tape, context=context, proj=out)
    return y, MultiHeadCache(c_qkv, c_attention, c_proj, c_drop)


def multi_head_backward(dy: Array, cache: MultiHeadCache, tape: Tape = None) -> tuple[Array, dict[str, Array]]:
    """(B, T, D) -> dx (B, T, D), gradients of the four parameters."""
    num_heads = cache.attention.q.shape[1]
    dout = dropout_backward(dy, cache.proj_drop)  # y = drop(out)
    dcontext, g_proj = linear_backward(dout, cache.proj)  # out = context @ proj.T + bias
    note(tape, proj=dout, context=dcontext)
    dheads = split_heads(dcontext, num_heads)  # context = merge_heads(heads)
    dq, dk, dv = attention_backward(dheads, cache.attention, tape)
    dqkv = np.empty((*dy.shape[:2], cache.qkv.weight.shape[0]), dy.dtype)  # (B, T, 3D)
    for part, d in zip(np.split(dqkv, 3, axis=-1), (dq, dk, dv), strict=True):
        split_heads(part, num_heads)[...] = d  # q, k, v = split(qkv), split into heads
    dx, g_qkv = linear_backward(dqkv, cache.qkv)  # qkv = x @ qkv.T + bias
    note(tape, q=dq, k=dk, v=dv, qkv=dqkv)
    return dx, {**under("qkv", g_qkv), **under("proj", g_proj)}
