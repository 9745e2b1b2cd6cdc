r"""Attention pooling (MAP): a learned query reads all tokens, and an MLP works on what it read."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.activated_mlp import ActivatedMlpCache, activated_mlp_backward, activated_mlp_forward
from numpy_vit.attention import AttentionCache, attention_backward, attention_forward
from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from numpy_vit.multi_head import merge_heads, split_heads
from numpy_vit.norm import NormCache, norm_backward, norm_forward
from vit_common.config import ViTConfig
from vit_common.errors import check_shape
from vit_common.params import sub, under
from vit_common.tape import Tape, note, scope

Array = np.ndarray


class AttentionPoolCache(NamedTuple):
    q: LinearCache
    kv: LinearCache
    attention: AttentionCache
    proj: LinearCache
    norm: NormCache
    mlp: ActivatedMlpCache


def attention_pool_forward(
    params: Mapping[str, Array], x: Array, config: ViTConfig, tape: Tape = None
) -> tuple[Array, AttentionPoolCache]:
    r"""(B, T, D) -> (B, D).

    $$u = \operatorname{MHA}(l W_q^\top + b_q,\; x W_{kv}^\top + b_{kv})\, W_o^\top + b_o, \qquad
      y = u + \operatorname{MLP}(\operatorname{norm}(u))$$

    Zhai et al. 2022 ("Scaling Vision Transformers"), section 3.2, after Lee et al. 2019. Parameters: `latent`
    (1, 1, D), `q.*`, `kv.*`, `proj.*`, `norm.*`, `mlp.*`. **Backward**: every image asks with the same latent, whose
    gradient is the sum over the batch.

    Raises:
        ShapeError: a parameter does not fit x.
    """
    heads, batch = config.attn_pool_heads or config.num_heads, len(x)
    latent = np.broadcast_to(params["latent"], (batch, *params["latent"].shape[1:]))  # (B, 1, D)
    q, c_q = linear_forward(latent, params["q.weight"], params["q.bias"])
    kv, c_kv = linear_forward(x, params["kv.weight"], params["kv.bias"])  # (B, T, 2D)
    k, v = np.split(kv, 2, axis=-1)
    y, c_attention = attention_forward(
        split_heads(q, heads), split_heads(k, heads), split_heads(v, heads), tape=tape
    )
    u, c_proj = linear_forward(merge_heads(y), params["proj.weight"], params["proj.bias"])  # (B, 1, D)
    normed, c_norm = norm_forward(sub(params, "norm"), u, config.norm, config.norm_eps)
    own = config.replace(proj_drop_rate=0.0, activation=config.attn_pool_activation or config.activation)
    m, c_mlp = activated_mlp_forward(sub(params, "mlp"), normed, own, None, scope(tape, "mlp"))
    note(tape, q=q, kv=kv, proj=u, norm=normed, mlp=m)
    return (u + m)[:, 0], AttentionPoolCache(c_q, c_kv, c_attention, c_proj, c_norm, c_mlp)


def attention_pool_backward(dy: Array, cache: AttentionPoolCache, tape: Tape = None) -> tuple[Array, dict[str, Array]]:
    """(B, D) -> dx (B, T, D), gradients of the parameters."""
    check_shape("dy of attention_pool", dy, (len(cache.proj.x), len(cache.proj.weight)))
    dm = dy[:, None]  # y = (u + m)[:, 0]
    dnormed, g_mlp = activated_mlp_backward(dm, cache.mlp, scope(tape, "mlp"))
    du, g_norm = norm_backward(dnormed, cache.norm)
    du = du + dm  # u + mlp(norm(u)): u forks
    dcontext, g_proj = linear_backward(du, cache.proj)
    heads = cache.attention.q.shape[1]
    dq, dk, dv = (merge_heads(d) for d in attention_backward(split_heads(dcontext, heads), cache.attention, tape))
    dkv = np.concatenate((dk, dv), axis=-1)  # k, v = split(kv)
    dlatent, g_q = linear_backward(dq, cache.q)
    dx, g_kv = linear_backward(dkv, cache.kv)
    note(tape, q=dq, kv=dkv, proj=du, norm=dnormed, mlp=dm)
    grads = {"latent": dlatent.sum(axis=0, keepdims=True)}  # latent = broadcast_to(params, (B, 1, D))
    named = {"q": g_q, "kv": g_kv, "proj": g_proj, "norm": g_norm, "mlp": g_mlp}
    return dx, grads | {k: g for name, gs in named.items() for k, g in under(name, gs).items()}
