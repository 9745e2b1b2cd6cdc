r"""The bounds of the stages inside a block of a variant: MLPs, and attention with all that variants put into it."""

from __future__ import annotations

import numpy as np

from parity_tests import variant_bounds as leaves
from parity_tests.bound_parts import chain, norm, total
from parity_tests.bounds import Grads, Pullback, dropout, linear, merge_heads, split_heads, sub, under
from parity_tests.tolerances import Bounded, concatenate


def activated_mlp(params: Grads, x: Bounded, config, masks=None) -> tuple[Bounded, Pullback]:
    r"""Linear, the activation named, dropout, perhaps a norm, linear, dropout."""
    masks = masks or {}
    hidden, fc1 = linear(x, params["fc1.weight"], params.get("fc1.bias"))
    act, phi = leaves.activation(hidden, config.activation)
    y, tail = _mlp_tail(params, act, config, masks)
    return y, chain(("fc1", fc1), ("", phi), ("", tail))


def gated_mlp(params: Grads, x: Bounded, config, masks=None) -> tuple[Bounded, Pullback]:
    r"""Two linear maps of one x, one rounding for their product; back, each factor gets a product with the other."""
    masks, packed = masks or {}, "fc1.weight" in params
    names = ("fc1",) if packed else ("fc1_g", "fc1_x")
    maps = [linear(x, params[f"{n}.weight"], params.get(f"{n}.bias")) for n in names]
    half = config.mlp_dim
    raw, value = (maps[0][0][..., :half], maps[0][0][..., half:]) if packed else (maps[0][0], maps[1][0])
    gate, phi = leaves.activation(raw, config.activation)
    y, tail = _mlp_tail(params, gate * value, config, masks)

    def pullback(dy: Bounded) -> Grads:
        grads = tail(dy)
        dproduct = grads.pop("x")
        draw, dvalue = phi(dproduct * value)["x"], dproduct * gate
        parts = [concatenate([draw, dvalue], -1)] if packed else [draw, dvalue]
        read = [back(d) for (_, back), d in zip(maps, parts, strict=True)]
        named = [{"x": g.pop("x"), **under(n, g)} for n, g in zip(names, read, strict=True)]
        return {**grads, **total(*named)}

    return y, pullback


def _mlp_tail(params: Grads, act: Bounded, config, masks) -> tuple[Bounded, Pullback]:
    r"""Dropout, the norm if there is one, linear, dropout."""
    inner, drop1 = dropout(act, masks.get("drop1"), config.proj_drop_rate)
    stages = [("", drop1)]
    if "norm.weight" in params:
        inner, back = norm(sub(params, "norm"), inner, config.norm, config.norm_eps)
        stages.append(("norm", back))
    out, fc2 = linear(inner, params["fc2.weight"], params.get("fc2.bias"))
    y, drop2 = dropout(out, masks.get("drop2"), config.proj_drop_rate)
    return y, chain(*stages, ("fc2", fc2), ("", drop2))


def qkv_project(params: Grads, x: Bounded, heads: tuple[int, int, int]):
    """q, k, v by heads, and a pullback of their three gradients."""
    fused = "qkv.weight" in params
    names = ("qkv",) if fused else ("q_proj", "k_proj", "v_proj")
    biases = [params.get(f"{n}.bias") for n in names]
    if "q_bias" in params:
        q, v = params["q_bias"], params["v_bias"]
        biases = [concatenate([q, q.new(np.zeros_like(q.v), 0.0), v], 0)]
    maps = [linear(x, params[f"{n}.weight"], b) for n, b in zip(names, biases, strict=True)]
    width = maps[0][0].v.shape[-1] // 3
    parts = [maps[0][0][..., i * width : (i + 1) * width] for i in range(3)] if fused else [y for y, _ in maps]

    def pullback(dq: Bounded, dk: Bounded, dv: Bounded) -> Grads:
        merged = [merge_heads(d) for d in (dq, dk, dv)]
        given = [concatenate(merged, -1)] if fused else merged
        read = [back(d) for (_, back), d in zip(maps, given, strict=True)]
        grads = total(*({"x": g.pop("x"), **under(n, g)} for n, g in zip(names, read, strict=True)))
        if "q_bias" in params:
            both = grads.pop("qkv.bias")
            grads |= {"q_bias": both[:width], "v_bias": both[2 * width :]}
        return grads

    return [split_heads(part, n) for part, n in zip(parts, heads, strict=True)], pullback


def turned_head(params: Grads, x: Bounded, name: str, config, positions) -> tuple[Bounded, Pullback]:
    """Query or key: normalised over its heads, then turned."""
    stages = []
    if config.qk_norm:
        x, back = norm(sub(params, name), x, config.norm, config.norm_eps)
        stages.append((name, back))
    if positions.sin is not None:
        prefix = x.v.shape[2] - np.shape(getattr(positions.sin, 'v', positions.sin))[2]
        sin, cos = (a if isinstance(a, Bounded) else x.new(a, 0.0) for a in (positions.sin, positions.cos))
        x, turn = leaves.rope(x, sin, cos, prefix, config.rope_half)
        stages.append(("", lambda dy: {"x": turn(dy)["x"]}))
    return x, chain(*stages)


def heads_attend(params: Grads, q: Bounded, k: Bounded, v: Bounded, config, positions, masks):
    """Norm, rotation, groups, bias, softmax attention or the difference of two; pullback gives q, k, v and the rest."""
    diff, heads = config.uses_diff_attention, config.num_heads
    q, q_back = turned_head(params, q, "q_norm", config, positions)
    k, k_back = turned_head(params, k, "k_norm", config, positions)
    k, k_group = leaves.grouped_query(k, k.v.shape[1] if diff else heads)
    v, v_group = leaves.grouped_query(v, heads)
    bias = None if positions.bias is None else q.new(positions.bias, 0.0)
    look_up = None
    if "relative_position_bias_table" in params:
        own, look_up = leaves.rel_pos_bias(params["relative_position_bias_table"], config.grid_size)
        bias = own if bias is None else own + bias
    drops = masks.get("attn_drop"), config.attn_drop_rate
    if diff:
        names = [n for n in params if n.startswith("lambda_") or n == "sub_norm.weight"]
        y, back = leaves.diff_attention({n: params[n] for n in names}, q, k, v, positions.layer, bias, *drops)
    else:
        y, back = leaves.biased_attention(q, k, v, bias, *drops)

    def pullback(dy: Bounded) -> Grads:
        grads = back(dy)
        gq, gk = q_back(grads.pop("q")), k_back(k_group(grads.pop("k"))["x"])
        dv, dbias = v_group(grads.pop("v"))["x"], grads.pop("bias", None)
        if look_up is not None:
            grads["relative_position_bias_table"] = look_up(dbias)["table"]
        return {**grads, "q": gq.pop("x"), "k": gk.pop("x"), "v": dv, **gq, **gk}

    return y, pullback


def assembled_attention(params: Grads, x: Bounded, config, positions, masks=None) -> tuple[Bounded, Pullback]:
    r"""Projections, what the heads do, norm and projection of what they say; dx is the sum of three, two roundings."""
    masks, heads, kv = masks or {}, config.num_heads, config.kv_heads[positions.layer]
    counts = (2 * heads, 2 * heads, heads) if config.uses_diff_attention else (heads, kv, kv)
    (q, k, v), project = qkv_project(params, x, counts)
    each, attend = heads_attend(params, q, k, v, config, positions, masks)
    y, stages = merge_heads(each), []
    if config.attn_norm:
        y, back = norm(sub(params, "norm"), y, config.norm, config.norm_eps)
        stages.append(("norm", back))
    if config.attn_proj:
        y, back = linear(y, params["proj.weight"], params.get("proj.bias"))
        stages.append(("proj", back))
    y, drop = dropout(y, masks.get("proj_drop"), config.proj_drop_rate)
    tail = chain(*stages, ("", drop))

    def pullback(dy: Bounded) -> Grads:
        grads = tail(dy)
        inner = attend(split_heads(grads.pop("x"), each.v.shape[1]))
        return {**grads, **project(*(inner.pop(n) for n in "qkv")), **inner}

    return y, pullback
