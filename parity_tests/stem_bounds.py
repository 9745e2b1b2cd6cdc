r"""The bounds of the variants' two ends: patches and tokens before the blocks, attention pooling after them."""

from __future__ import annotations

import numpy as np

from parity_tests.assembled_bounds import activated_mlp
from parity_tests.bound_parts import chain, norm, total
from parity_tests.bounds import (
    Grads,
    Pullback,
    attention,
    dropout,
    layer_norm,
    linear,
    merge_heads,
    patch_embed,
    split_heads,
    sub,
    under,
)
from parity_tests.naive import patchify_loops, sincos_positions, unpatchify_loops
from parity_tests.resize_bounds import pos_resize
from parity_tests.token_bounds import patch_dropout
from parity_tests.tolerances import Bounded, concatenate, unit_roundoff


def patch_stem(params: Grads, images: Bounded, config) -> tuple[Bounded, Pullback]:
    r"""Cropping moves numbers; then LayerNorm of the raw patch, the linear map, a norm, where there are such."""
    sizes = [n * p for n, p in zip(config.grid_size, config.patch_size, strict=True)]
    weight = params["proj.weight"]
    inside = images.map(lambda a: fitted(a, sizes))
    uncrop = lambda dy: {"x": dy.map(lambda a: fitted(a, config.image_size))}  # noqa: E731
    stages = [("", uncrop)]
    if config.patch_norm_in:
        x = inside.map(lambda a: patchify_loops(a, config.patch_size))
        put = lambda dy: {"x": dy.map(lambda a: unpatchify_loops(a, inside.v.shape[1:], config.patch_size))}  # noqa: E731
        x, norm_in = layer_norm(x, params["norm_in.weight"], params["norm_in.bias"], config.norm_eps)
        x, project = linear(x, weight.map(lambda a: a.reshape(len(a), -1)), params.get("proj.bias"))
        stages += [("", put), ("norm_in", norm_in)]
    else:
        x, project = patch_embed(inside, weight, params.get("proj.bias"))

    def shaped(dy: Bounded) -> Grads:
        return {n: g.map(lambda a: a.reshape(weight.v.shape)) if n == "weight" else g for n, g in project(dy).items()}

    stages.append(("proj", shaped))
    if config.patch_norm != "none":
        x, back = norm(sub(params, "norm"), x, config.patch_norm, config.patch_norm_eps or config.norm_eps)
        stages.append(("norm", back))
    return x, chain(*stages)


def fitted(a: np.ndarray, size: tuple[int, int] | list[int]) -> np.ndarray:
    """(..., H, W) cut to another height and width, or filled up with zeros."""
    a = a[..., : size[0], : size[1]]
    return np.pad(a, ((0, 0), (0, 0), *((0, n - have) for n, have in zip(size, a.shape[2:], strict=True))))


def token_stem(params: Grads, x: Bounded, config, masks) -> tuple[Bounded, Pullback]:
    r"""One rounding for positions and two for dropout; the tokens' gradients are $\gamma_B \sum_b |g_b|$ and positions'
    too, through the transposed resizing where there is one."""
    names = [n for n in ("cls_token", "dist_token", "reg_token") if n in params]
    count, lead = config.num_prefix_tokens, config.num_pos_prefix
    fixed, resize, pos = config.pos_embed != "learned", None, None
    if config.pos_embed != "none":
        pos = _fixed_positions(x, config) if fixed else params["pos_embed"]
        if not fixed and config.pos_grid is not None:
            pos, resize = pos_resize(pos, config.pos_grid, config.grid_size, config.pos_resize, lead)
        zeros = pos.new(np.zeros((1, count - lead, config.embed_dim)), 0.0)
        pos = concatenate([pos[:, :lead], zeros, pos[:, lead:]], 1)
    rows = [*range(lead), *range(count, config.num_tokens)]  # the tokens that have positions
    spread = [params[n].map(lambda a: np.repeat(a, len(x.v), 0)) for n in names]
    tokens = concatenate([*spread, x], 1)
    y, stages = tokens if pos is None else tokens + pos, []
    y, drop = dropout(y, masks.get("pos_drop"), config.pos_drop_rate)
    stages.append(("", drop))
    if "patch_drop" in masks:
        y, back = patch_dropout(y, masks["patch_drop"], count)
        stages.append(("", back))
    tail = chain(*stages)

    def pullback(dy: Bounded) -> Grads:
        d, start = tail(dy)["x"], 0
        grads: Grads = {"x": d[:, count:]}
        for name in names:
            length = params[name].v.shape[1]
            grads[name] = d[:, start : start + length].sum(0)
            start += length
        if not fixed:
            dpos = d[:, rows].sum(0)
            grads["pos_embed"] = dpos if resize is None else resize(dpos)["pos_embed"]
        return grads

    return y, pullback


def _fixed_positions(x: Bounded, config) -> Bounded:
    """As in `bounds.vit`: a table rounded once, its angles up to T known to some float64 roundings."""
    plain = config.replace(reg_tokens=0, dist_token=False, class_token=True, pool="cls", pos_embed_prefix=True)
    table = sincos_positions(plain)
    lead = config.num_pos_prefix
    if config.pos_embed == "sincos_1d":
        longer = config.replace(
            image_size=(1, lead + config.num_patches), patch_size=1, class_token=False, pool="mean", reg_tokens=0,
            dist_token=False,
        )  # fmt: skip
        table = sincos_positions(longer)
    else:
        table = np.pad(table[:, 1:], ((0, 0), (lead, 0), (0, 0)))
    return x.new(table, x.u * np.abs(table) + 8 * config.num_tokens * unit_roundoff(np.float64))


def attention_pool(params: Grads, x: Bounded, config) -> tuple[Bounded, Pullback]:
    r"""The plain attention's bound with one query, then norm and MLP beside a residual; the latent's gradient is a
    sum over the batch."""
    heads, batch = config.attn_pool_heads or config.num_heads, len(x.v)
    latent = params["latent"].map(lambda a: np.repeat(a, batch, 0))
    q, q_back = linear(latent, params["q.weight"], params["q.bias"])
    kv, kv_back = linear(x, params["kv.weight"], params["kv.bias"])
    width = kv.v.shape[-1] // 2
    y, attend = attention(*(split_heads(a, heads) for a in (q, kv[..., :width], kv[..., width:])))
    u, project = linear(merge_heads(y), params["proj.weight"], params["proj.bias"])
    normed, norm_back = norm(sub(params, "norm"), u, config.norm, config.norm_eps)
    own = config.replace(activation=config.attn_pool_activation or config.activation)
    m, mlp_back = activated_mlp(sub(params, "mlp"), normed, own)

    def pullback(dy: Bounded) -> Grads:
        d = dy[:, None]
        grads = total({"x": d}, chain(("norm", norm_back), ("mlp", mlp_back))(d))
        g = project(grads.pop("x"))
        each = attend(split_heads(g.pop("x"), heads))
        gq = q_back(merge_heads(each["q"]))
        gkv = kv_back(concatenate([merge_heads(each["k"]), merge_heads(each["v"])], -1))
        latents = gq.pop("x").sum(0)
        named = {**under("proj", g), **under("q", gq), "x": gkv.pop("x"), **under("kv", gkv)}
        return {**grads, "latent": latents, **named}

    return (u + m)[:, 0], pullback
