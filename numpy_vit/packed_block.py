r"""Encoder block on a packed row: all of it acts on each token alone, but for attention, which keeps to a segment."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from numpy_vit.layer_norm import LayerNormCache, layer_norm_backward, layer_norm_forward
from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from numpy_vit.mlp import MlpCache, mlp_backward, mlp_forward
from numpy_vit.multi_head import merge_heads, split_heads
from numpy_vit.packed_attention import PackedAttentionCache, packed_attention_backward, packed_attention_forward
from vit_common.config import ViTConfig
from vit_common.errors import check_names
from vit_common.params import sub, under
from vit_common.part_names import ENCODER_BLOCK

Array = np.ndarray


class PackedBlockCache(NamedTuple):
    norm1: LayerNormCache
    qkv: LinearCache
    attention: PackedAttentionCache
    proj: LinearCache
    norm2: LayerNormCache
    mlp: MlpCache
    num_heads: int


def packed_block_forward(
    params: Mapping[str, Array], x: Array, lengths: Sequence[int], config: ViTConfig
) -> tuple[Array, PackedBlockCache]:
    r"""(1, T, D), T tokens of segments of these lengths -> (1, T, D).

    $$z = x + \operatorname{MHA}_\mathrm{packed}(\operatorname{LN}_1(x)), \qquad
      y = z + \operatorname{MLP}(\operatorname{LN}_2(z))$$

    The block of `encoder_block`, with its parameters, nothing dropped. Its matrix products run over all tokens of all
    images at once. **Backward**: as there.

    Raises:
        CheckpointError: a parameter is missing or unknown.
        ShapeError: a parameter does not fit x, or the lengths do not.
    """
    check_names("packed_block", params, ENCODER_BLOCK)
    n1, c_norm1 = layer_norm_forward(x, params["norm1.weight"], params["norm1.bias"], config.norm_eps)
    qkv, c_qkv = linear_forward(n1, params["attn.qkv.weight"], params["attn.qkv.bias"])  # (1, T, 3D)
    q, k, v = (split_heads(part, config.num_heads) for part in np.split(qkv, 3, axis=-1))  # (1, NH, T, HD) each
    heads, c_attention = packed_attention_forward(q, k, v, lengths)
    a, c_proj = linear_forward(merge_heads(heads), params["attn.proj.weight"], params["attn.proj.bias"])
    z = x + a
    n2, c_norm2 = layer_norm_forward(z, params["norm2.weight"], params["norm2.bias"], config.norm_eps)
    m, c_mlp = mlp_forward(sub(params, "mlp"), n2, config)
    return z + m, PackedBlockCache(c_norm1, c_qkv, c_attention, c_proj, c_norm2, c_mlp, config.num_heads)


def packed_block_backward(dy: Array, cache: PackedBlockCache) -> tuple[Array, dict[str, Array]]:
    """(1, T, D) -> dx (1, T, D), gradients of the block's parameters."""
    dn2, g_mlp = mlp_backward(dy, cache.mlp)  # y = z + mlp(n2)
    dz, g_norm2 = layer_norm_backward(dn2, cache.norm2)  # n2 = layer_norm(z)
    dz += dy  # y = z + ...: z forks
    dcontext, g_proj = linear_backward(dz, cache.proj)  # z = x + context @ proj.T + bias
    dq, dk, dv = packed_attention_backward(split_heads(dcontext, cache.num_heads), cache.attention)
    dqkv = np.concatenate([merge_heads(d) for d in (dq, dk, dv)], axis=-1)  # q, k, v = split(qkv)
    dn1, g_qkv = linear_backward(dqkv, cache.qkv)  # qkv = n1 @ qkv.T + bias
    dx, g_norm1 = layer_norm_backward(dn1, cache.norm1)  # n1 = layer_norm(x)
    dx += dz  # z = x + ...: x forks
    attn = {**under("attn.qkv", g_qkv), **under("attn.proj", g_proj)}
    return dx, {**under("norm1", g_norm1), **attn, **under("norm2", g_norm2), **under("mlp", g_mlp)}
