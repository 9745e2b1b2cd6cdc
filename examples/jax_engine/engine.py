"""A third engine, in JAX: the stages with `jax.numpy`, every backward by `jax.vjp`. Passes the parity suite.

    pip install 'vit-written-twice[test,jax]'
    pytest parity_tests --engine examples/jax_engine/engine.py

An example of a port: NumPy arrays in and out, and in the cache what the backward needs, here the function that
`jax.vjp` returns. Parameters are flat dicts with the names of `vit_common.param_spec`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_common import ViTConfig
from vit_common.masks import drop_path_rates
from vit_common.params import sub

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")

Array = np.ndarray
HIGHEST = jax.lax.Precision.HIGHEST  # no TF32, no bfloat16 where a device would like to


# ---- the stages, as functions of jax arrays --------------------------------------------------------------------


def linear(x, weight, bias=None):
    y = jnp.matmul(x, weight.T, precision=HIGHEST)
    return y if bias is None else y + bias


def patchify_(images, patch):
    (b, c, h, w), (ph, pw) = images.shape, patch
    blocks = images.reshape(b, c, h // ph, ph, w // pw, pw).transpose(0, 2, 4, 1, 3, 5)
    return blocks.reshape(b, (h // ph) * (w // pw), c * ph * pw)


def patch_embed(images, weight, bias=None):
    return linear(patchify_(images, weight.shape[2:]), weight.reshape(len(weight), -1), bias)


def class_token(x, cls_token):
    return jnp.concatenate((jnp.broadcast_to(cls_token, (len(x), 1, x.shape[2])), x), axis=1)


def pos_embed(x, pos_embed):
    return x + pos_embed


def layer_norm(x, weight, bias, eps=1e-6):
    xhat = x - x.mean(-1, keepdims=True)
    xhat = xhat / jnp.sqrt((xhat * xhat).mean(-1, keepdims=True) + eps)
    return xhat * weight + bias


def gelu(x):
    return jax.nn.gelu(x, approximate=False)


def dropout(x, mask, rate):
    if mask is None:
        return x
    return x * mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)) * x.dtype.type(1 / (1 - rate))


def softmax(x):
    return jax.nn.softmax(x, axis=-1)


def attention(q, k, v, drop_mask=None, drop_rate=0.0):
    scores = jnp.matmul(q * (1 / math.sqrt(q.shape[-1])), k.swapaxes(-1, -2), precision=HIGHEST)
    return jnp.matmul(dropout(softmax(scores), drop_mask, drop_rate), v, precision=HIGHEST)


def multi_head(params, x, config, masks=None):
    masks, (b, t, d) = masks or {}, x.shape
    qkv = linear(x, params["qkv.weight"], params["qkv.bias"]).reshape(b, t, 3, config.num_heads, -1)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    heads = attention(q, k, v, masks.get("attn_drop"), config.attn_drop_rate)
    out = linear(heads.transpose(0, 2, 1, 3).reshape(b, t, d), params["proj.weight"], params["proj.bias"])
    return dropout(out, masks.get("proj_drop"), config.proj_drop_rate)


def mlp(params, x, config, masks=None):
    masks = masks or {}
    hidden = gelu(linear(x, params["fc1.weight"], params["fc1.bias"]))
    hidden = dropout(hidden, masks.get("drop1"), config.proj_drop_rate)
    out = linear(hidden, params["fc2.weight"], params["fc2.bias"])
    return dropout(out, masks.get("drop2"), config.proj_drop_rate)


def encoder_block(params, x, config, masks=None, drop_path_rate=0.0):
    masks = masks or {}
    normed = layer_norm(x, params["norm1.weight"], params["norm1.bias"], config.norm_eps)
    branch = multi_head(sub(params, "attn"), normed, config, sub(masks, "attn"))
    x = x + dropout(branch, masks.get("drop_path1"), drop_path_rate)
    normed = layer_norm(x, params["norm2.weight"], params["norm2.bias"], config.norm_eps)
    branch = mlp(sub(params, "mlp"), normed, config, sub(masks, "mlp"))
    return x + dropout(branch, masks.get("drop_path2"), drop_path_rate)


def encoder(params, x, config, masks=None):
    for i, rate in enumerate(drop_path_rates(config)):
        x = encoder_block(sub(params, str(i)), x, config, sub(masks or {}, str(i)), rate)
    return x


def pool(x, pool="cls", prefix=1):
    return x[:, 0] if pool == "cls" else x[:, prefix:].mean(axis=1)


def head(params, x, config):
    pooled = pool(x, config.pool, int(config.class_token))
    return linear(pooled, params["weight"], params["bias"]) if config.num_classes else pooled


def cross_entropy(logits, labels, label_smoothing=0.0):
    log_probs = jax.nn.log_softmax(logits, axis=1)
    losses = log_probs[jnp.arange(len(labels)), labels]
    if label_smoothing:  # a class that is impossible has log_probs -inf, and 0 * inf is NaN
        losses = (1 - label_smoothing) * losses + label_smoothing * log_probs.mean(axis=1)
    return -losses.mean()


def positions(config: ViTConfig) -> Array:
    """Fixed positions, (1, T, D): see `numpy_vit.pos_embed`."""
    d, (rows, columns) = config.embed_dim, config.grid_size
    if config.pos_embed == "sincos_1d":
        i = np.arange(d)
        angle = np.arange(config.num_tokens)[:, None] / 10000.0 ** ((i - i % 2) / d)
        return np.where(i % 2, np.cos(angle), np.sin(angle))[None]
    omega = 10000.0 ** (-np.arange(d // 4) / (d // 4))
    y, x = (np.outer(n.ravel(), omega) for n in np.mgrid[:rows, :columns])
    table = np.concatenate((np.sin(x), np.cos(x), np.sin(y), np.cos(y)), axis=1)
    return np.pad(table, ((int(config.class_token), 0), (0, 0)))[None]


def vit(params, images, config, masks=None):
    masks = masks or {}
    x = patch_embed(images, params["patch_embed.proj.weight"], params["patch_embed.proj.bias"])
    if config.class_token:
        x = class_token(x, params["cls_token"])
    if config.pos_embed != "none":
        x = x + (params["pos_embed"] if config.pos_embed == "learned" else positions(config).astype(x.dtype))
    x = dropout(x, masks.get("pos_drop"), config.pos_drop_rate)
    x = encoder(sub(params, "blocks"), x, config, sub(masks, "blocks"))
    x = layer_norm(x, params["norm.weight"], params["norm.bias"], config.norm_eps)
    return head(sub(params, "head"), x, config)


# ---- the suite's interface: NumPy in, NumPy out, the pullback as cache -----------------------------------------


@partial(jax.jit, static_argnums=(0, 1))
def differentiated(stage: Callable, fixed: tuple, arrays: tuple, traced: dict[str, Any]) -> tuple[Any, Callable]:
    """Compiled once for a stage, its fixed options and the shapes: calls of that shape are then cheap."""
    return jax.vjp(lambda *a: stage(*a, **dict(fixed), **traced), *arrays)


@jax.jit
def pulled_back(pullback: Callable, dy: Any) -> tuple:
    return pullback(dy)


def forward(stage: Callable, *arrays: Any, **options: Any) -> tuple[Array, Callable]:
    """(y, cache) of a stage whose positional arguments are all differentiable: arrays, or dicts of arrays."""
    traced = {name: value for name, value in options.items() if isinstance(value, np.ndarray | dict)}
    fixed = tuple((name, value) for name, value in options.items() if name not in traced)
    y, pullback = differentiated(stage, fixed, arrays, jax.tree.map(partial(as_factor, arrays), traced))
    return np.asarray(y), pullback


def as_factor(arrays: tuple, value: Array) -> Array:
    """A mask in the precision of the arrays: of a bool XLA makes a choice, in which what is dropped is 0, even NaN."""
    return value.astype(jax.tree.leaves(arrays)[0].dtype) if value.dtype == bool else value


def gradients(dy: Any, pullback: Callable) -> tuple:
    """The gradient of each argument, as NumPy arrays of one's own."""
    return jax.tree.map(np.array, pulled_back(pullback, dy))


def _weighted(stage: Callable, *names: str) -> tuple[Callable, Callable]:
    """A stage of x and named weights: the backward gives dx and a dict."""

    def run(x: Array, *weights: Any, **options: Any) -> tuple[Array, Any]:
        return forward(stage, x, *(w for w in weights if w is not None), **options)

    def backward(dy: Array, pullback: Any) -> tuple[Array, dict[str, Array]]:
        dx, *grads = gradients(dy, pullback)
        return dx, dict(zip(names, grads, strict=False))

    return run, backward


def _composite(stage: Callable) -> tuple[Callable, Callable]:
    """A stage of (params, x): the backward gives dx and a dict with the parameters' names."""

    def run(params: dict[str, Array], x: Array, config: ViTConfig, **options: Any) -> tuple[Array, Any]:
        return forward(stage, dict(params), x, config=config, **options)

    def backward(dy: Array, pullback: Any) -> tuple[Array, dict[str, Array]]:
        grads, dx = gradients(dy, pullback)
        return dx, grads

    return run, backward


linear_forward, linear_backward = _weighted(linear, "weight", "bias")
patch_embed_forward, patch_embed_backward = _weighted(patch_embed, "weight", "bias")
class_token_forward, class_token_backward = _weighted(class_token, "cls_token")
pos_embed_forward, pos_embed_backward = _weighted(pos_embed, "pos_embed")
layer_norm_forward, layer_norm_backward = _weighted(layer_norm, "weight", "bias")
multi_head_forward, multi_head_backward = _composite(multi_head)
mlp_forward, mlp_backward = _composite(mlp)
encoder_block_forward, encoder_block_backward = _composite(encoder_block)
encoder_forward, encoder_backward = _composite(encoder)
head_forward, head_backward = _composite(head)
vit_forward, vit_backward = _composite(vit)


def _plain_backward(dy: Array, pullback: Any) -> Array:
    return gradients(dy, pullback)[0]


def gelu_forward(x: Array) -> tuple[Array, Any]:
    return forward(gelu, x)


def softmax_forward(x: Array) -> tuple[Array, Any]:
    return forward(softmax, x)


def dropout_forward(x: Array, mask: Array | None, rate: float) -> tuple[Array, Any]:
    return forward(dropout, x, mask=mask, rate=rate)


def pool_forward(x: Array, pool: str = "cls", prefix: int = 1) -> tuple[Array, Any]:
    return forward(globals()["pool"], x, pool=pool, prefix=prefix)


gelu_backward = softmax_backward = dropout_backward = drop_path_backward = pool_backward = _plain_backward
drop_path_forward = dropout_forward


def attention_forward(q, k, v, drop_mask=None, drop_rate=0.0) -> tuple[Array, Any]:
    return forward(attention, q, k, v, drop_mask=drop_mask, drop_rate=drop_rate)


def attention_backward(dy: Array, pullback: Any) -> tuple[Array, ...]:
    return gradients(dy, pullback)


def cross_entropy_forward(logits: Array, labels: Array, label_smoothing: float = 0.0) -> tuple[Any, Any]:
    loss, pullback = forward(cross_entropy, logits, labels=labels, label_smoothing=label_smoothing)
    return loss, (pullback, loss.dtype)


def cross_entropy_backward(cache: Any, dloss: float = 1.0) -> Array:
    pullback, dtype = cache
    return gradients(dtype.type(dloss), pullback)[0]
