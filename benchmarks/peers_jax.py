"""A plain functional Vision Transformer in jax, a contestant of `peers`."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.contestants import LR, Case, Contestant

Array = np.ndarray


def jax(case: Case, threads: int) -> list[Contestant]:
    """A plain functional ViT under jit, with exact GELU as all here. XLA takes all cores it may run on."""
    import jax as library
    import jax.numpy as jnp

    config, heads = case.config, case.config.num_heads

    def norm(p: Mapping[str, Any], name: str, x: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        xhat = centred * library.lax.rsqrt((centred**2).mean(-1, keepdims=True) + config.norm_eps)
        return xhat * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(p: Mapping[str, Any], name: str, x: Any) -> Any:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def logits(p: Mapping[str, Any], images: Any) -> Any:
        (gh, gw), (ph, pw) = config.grid_size, config.patch_size
        patches = images.reshape(-1, config.in_channels, gh, ph, gw, pw).transpose(0, 2, 4, 1, 3, 5)
        weight = p["patch_embed.proj.weight"].reshape(config.embed_dim, -1)
        x = patches.reshape(-1, gh * gw, weight.shape[1]) @ weight.T + p["patch_embed.proj.bias"]
        x = (
            jnp.concatenate((jnp.broadcast_to(p["cls_token"], (x.shape[0], 1, x.shape[2])), x), 1)
            + p["pos_embed"]
        )
        for i in range(config.depth):
            b = f"blocks.{i}"
            qkv = linear(p, f"{b}.attn.qkv", norm(p, f"{b}.norm1", x))
            q, k, v = qkv.reshape(*x.shape[:2], 3, heads, config.head_dim).transpose(2, 0, 3, 1, 4)
            probs = library.nn.softmax(q @ k.swapaxes(-1, -2) / math.sqrt(config.head_dim), axis=-1)
            x = x + linear(p, f"{b}.attn.proj", (probs @ v).transpose(0, 2, 1, 3).reshape(x.shape))
            hidden = library.nn.gelu(linear(p, f"{b}.mlp.fc1", norm(p, f"{b}.norm2", x)), approximate=False)
            x = x + linear(p, f"{b}.mlp.fc2", hidden)
        return linear(p, "head", norm(p, "norm", x)[:, 0])

    def loss(p: Mapping[str, Any], images: Any, labels: Any) -> Any:
        log_probs = library.nn.log_softmax(logits(p, images))
        return -log_probs[jnp.arange(len(labels)), labels].mean()

    @library.jit
    def update(p: Any, m: Any, v: Any, t: Any, images: Any, labels: Any) -> Any:
        value, g = library.value_and_grad(loss)(p, images, labels)
        total = jnp.sqrt(sum((x**2).sum() for x in g.values()))
        g = {n: x * jnp.minimum(1.0, 1.0 / (total + 1e-6)) for n, x in g.items()}
        m = {n: 0.9 * m[n] + 0.1 * g[n] for n in p}
        v = {n: 0.999 * v[n] + 0.001 * g[n] ** 2 for n in p}
        move = {n: m[n] / (1 - 0.9**t) / (jnp.sqrt(v[n] / (1 - 0.999**t)) + 1e-8) for n in p}
        return {n: p[n] * (1 - LR * 0.01) - LR * move[n] for n in p}, m, v, value

    forward, grad = library.jit(logits), library.jit(library.grad(loss))
    params = {n: jnp.asarray(a) for n, a in case.params.items()}
    zeros = {n: jnp.zeros_like(a) for n, a in params.items()}
    state = {"p": params, "m": zeros, "v": zeros, "t": 0}

    def step(images: Array, labels: Array) -> float:
        state["t"] += 1
        state["p"], state["m"], state["v"], value = update(
            state["p"], state["m"], state["v"], float(state["t"]), images, labels
        )
        return float(value)

    def gradients(images: Array, labels: Array) -> dict[str, Array]:
        return {n: np.asarray(g) for n, g in grad(params, images, labels).items()}

    return [
        Contestant("jax jit", "none", lambda images: np.asarray(forward(params, images)), gradients, step)
    ]
