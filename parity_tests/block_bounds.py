r"""The bounds of the variants' blocks: branches on a stream, one after the other or side by side."""

from __future__ import annotations

from parity_tests import variant_bounds as leaves
from parity_tests.assembled_bounds import activated_mlp, assembled_attention, gated_mlp, heads_attend
from parity_tests.bound_parts import chain, norm, total
from parity_tests.bounds import Grads, Pullback, dropout, linear, merge_heads, split_heads, sub, under
from parity_tests.tolerances import Bounded, concatenate


def branch(params: Grads, x: Bounded, config, names: tuple[str, str, str, str], positions, rate: float, masks):
    """Norm, body, LayerScale, stochastic depth; names of the norm, the body, the scale and the path."""
    at_norm, at_body, at_scale, at_path = names

    def normed(a: Bounded) -> tuple[Bounded, Pullback]:
        return norm(sub(params, at_norm), a, config.norm, config.norm_eps)

    def body(a: Bounded) -> tuple[Bounded, Pullback]:
        inside = sub(params, at_body), a, config
        if at_body == "attn":
            return assembled_attention(*inside, positions, sub(masks, at_body))
        return (activated_mlp if config.mlp == "mlp" else gated_mlp)(*inside, sub(masks, at_body))

    steps = [(at_norm, normed), (at_body, body)]
    stages = []
    for prefix, step in reversed(steps) if config.block == "res_post" else steps:
        x, back = step(x)
        stages.append((prefix, back))
    if at_scale in params:
        x, back = leaves.layer_scale(x, params[at_scale])
        stages.append(("", _renamed(back, at_scale)))
    x, drop = dropout(x, masks.get(at_path), rate)
    return x, chain(*stages, ("", drop))


def _renamed(back: Pullback, name: str) -> Pullback:
    def pullback(dy: Bounded) -> Grads:
        return {"x" if n == "x" else name: g for n, g in back(dy).items()}

    return pullback


def assembled_block(
    params: Grads, x: Bounded, config, positions, masks=None, drop_path_rate: float = 0.0
) -> tuple[Bounded, Pullback]:
    r"""Two branches on a stream, one rounding for each sum, forward and back."""
    masks = masks or {}
    scales = ("gamma_1", "gamma_2") if config.layer_scale_names == "gamma" else ("ls1.gamma", "ls2.gamma")
    rest = positions, drop_path_rate, masks
    a, first = branch(params, x, config, ("norm1", "attn", scales[0], "drop_path1"), *rest)
    z = x + a
    m, second = branch(params, z, config, ("norm2", "mlp", scales[1], "drop_path2"), *rest)

    def pullback(dy: Bounded) -> Grads:
        grads = total({"x": dy}, second(dy))
        dz = grads.pop("x")
        return {**grads, **total({"x": dz}, first(dz))}

    return z + m, pullback


def parallel_things_block(
    params: Grads, x: Bounded, config, positions, masks=None, drop_path_rate: float = 0.0
) -> tuple[Bounded, Pullback]:
    r"""Twice two branches that read one value: two roundings for each sum, forward and back."""
    masks, backs = masks or {}, []
    for group, body in (("attns", "attn"), ("ffns", "mlp")):
        out, inside = x, []
        for at in (f"{group}.{j}" for j in range(2)):
            names = ("norm", body, "ls.gamma", "drop_path")
            y, back = branch(sub(params, at), x, config, names, positions, drop_path_rate, sub(masks, at))
            out = out + y
            inside.append((at, back))
        x = out
        backs.append(inside)

    def pullback(dy: Bounded) -> Grads:
        grads: Grads = {}
        for inside in reversed(backs):
            read = [(at, back(dy)) for at, back in inside]
            both = total({"x": dy}, *({"x": g.pop("x"), **under(at, g)} for at, g in read))
            dy = both.pop("x")
            grads |= both
        return {"x": dy, **grads}

    return x, pullback


def parallel_block(
    params: Grads, x: Bounded, config, positions, masks=None, drop_path_rate: float = 0.0
) -> tuple[Bounded, Pullback]:
    r"""One norm and one projection for both ways; their outputs are added, and the stream to that: two roundings."""
    masks, heads, diff = masks or {}, config.num_heads, config.uses_diff_attention
    normed, in_norm = norm(sub(params, "in_norm"), x, config.norm, config.norm_eps)
    inner, in_proj = linear(normed, params["in_proj.weight"], params.get("in_proj.bias"))
    hidden, width = config.mlp_dim, config.attn_dim
    h = inner[..., :hidden]
    if "mlp_bias" in params:
        h = h + params["mlp_bias"]
    parts = [inner[..., hidden + i * width : hidden + (i + 1) * width] for i in range(3)]
    counts = (2 * heads, 2 * heads, heads) if diff else (heads,) * 3
    q, k, v = (split_heads(part, n) for part, n in zip(parts, counts, strict=True))
    each, attend = heads_attend(params, q, k, v, config, positions, masks)
    act, phi = leaves.activation(h, config.activation)
    m, drop = dropout(act, masks.get("mlp_drop"), config.proj_drop_rate)
    ways = {"attn_out_proj": merge_heads(each), "mlp_out_proj": m}
    if diff:
        ways = {"out_proj": concatenate(list(ways.values()), -1)}
    outs = {n: linear(a, params[f"{n}.weight"], params.get(f"{n}.bias")) for n, a in ways.items()}
    values = [y for y, _ in outs.values()]
    y, stages = values[0] if diff else values[0] + values[1], []
    if "ls.gamma" in params:
        y, back = leaves.layer_scale(y, params["ls.gamma"])
        stages.append(("ls", back))
    y, path = dropout(y, masks.get("drop_path"), drop_path_rate)
    tail = chain(*stages, ("", path))

    def pullback(dy: Bounded) -> Grads:
        grads = tail(dy)
        dout, back = grads.pop("x"), {}
        for name, (_, pull) in outs.items():
            g = pull(dout)
            back[name] = g.pop("x")
            grads |= under(name, g)
        both = back["out_proj"] if diff else concatenate(list(back.values()), -1)
        dh = phi(drop(both[..., width:])["x"])["x"]
        if "mlp_bias" in params:
            grads["mlp_bias"] = dh.sum((0, 1), False)
        inside = attend(split_heads(both[..., :width], each.v.shape[1]))
        dinner = concatenate([dh, *(merge_heads(inside.pop(n)) for n in "qkv")], -1)
        return {**grads, **inside, **total({"x": dy}, chain(("in_norm", in_norm), ("in_proj", in_proj))(dinner))}

    return x + y, pullback
