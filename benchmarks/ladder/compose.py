"""An encoder block out of the rungs of its parts."""

from collections.abc import Callable
from typing import Any

import numpy as np

from numpy_vit.linear import linear_backward, linear_forward
from numpy_vit.multi_head import merge_heads, split_heads
from vit_common.params import under

PARTS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def block(norm: Any, attention: Any, gelu: Any) -> tuple[Callable, Callable]:
    """encoder_block_forward and encoder_block_backward, those of the stage but for masks and tape, from three rungs."""

    def forward(params, x, config):
        """(B, T, D) -> (B, T, D)."""
        p = {name: (params[f"{name}.weight"], params[f"{name}.bias"]) for name in PARTS}
        caches = {}
        n, caches["norm1"] = norm.layer_norm_forward(x, *p["norm1"], config.norm_eps)
        qkv, caches["attn.qkv"] = linear_forward(n, *p["attn.qkv"])  # (B, T, 3D)
        width = qkv.shape[-1] // 3
        q, k, v = (split_heads(qkv[..., i * width : (i + 1) * width], config.num_heads) for i in range(3))
        heads, caches["attention"] = attention.attention_forward(q, k, v)
        a, caches["attn.proj"] = linear_forward(merge_heads(heads), *p["attn.proj"])
        z = x + a
        n, caches["norm2"] = norm.layer_norm_forward(z, *p["norm2"], config.norm_eps)
        hidden, caches["mlp.fc1"] = linear_forward(n, *p["mlp.fc1"])
        act, caches["gelu"] = gelu.gelu_forward(hidden)
        m, caches["mlp.fc2"] = linear_forward(act, *p["mlp.fc2"])
        return z + m, (caches, config.num_heads)

    def backward(dy, cache):
        """(B, T, D) -> dx (B, T, D), gradients of the block's parameters."""
        (caches, num_heads), grads = cache, {}

        def linear(name, d):
            d, g = linear_backward(d, caches[name])
            grads.update(under(name, g))
            return d

        def layer_norm(name, d):
            d, g = norm.layer_norm_backward(d, caches[name])
            grads.update(under(name, g))
            return d

        dhidden = gelu.gelu_backward(linear("mlp.fc2", dy), caches["gelu"])  # m = fc2(gelu(fc1(norm2(z))))
        dz = dy + layer_norm("norm2", linear("mlp.fc1", dhidden))  # y = z + m
        dheads = split_heads(linear("attn.proj", dz), num_heads)  # a = proj(merge_heads(heads))
        dq, dk, dv = (merge_heads(d) for d in attention.attention_backward(dheads, caches["attention"]))
        dqkv = np.concatenate((dq, dk, dv), axis=-1)
        dx = dz + layer_norm("norm1", linear("attn.qkv", dqkv))  # z = x + a
        return dx, grads

    return forward, backward
