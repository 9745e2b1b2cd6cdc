r"""The bounds of the plain model's composites: those of their parts (`leaf_bounds`), one after the other.

Written as the equations are, with the intermediates noted under the engines' names.
"""

import numpy as np

from parity_tests.leaf_bounds import (
    BoundTape,
    Grads,
    Pullback,
    attention,
    class_token,
    dropout,
    gelu,
    layer_norm,
    linear,
    patch_embed,
    pool,
    pos_embed,
    sub,
    under,
)
from parity_tests.leaf_bounds import cross_entropy as cross_entropy
from parity_tests.leaf_bounds import like as like
from parity_tests.leaf_bounds import rows as rows
from parity_tests.leaf_bounds import softmax as softmax
from parity_tests.tolerances import Bounded, concatenate, unit_roundoff


def split_heads(x: Bounded, heads: int) -> Bounded:
    batch, tokens, width = x.v.shape
    return x.map(lambda a: a.reshape(batch, tokens, heads, width // heads).transpose(0, 2, 1, 3))


def merge_heads(x: Bounded) -> Bounded:
    batch, heads, tokens, dim = x.v.shape
    return x.map(lambda a: a.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * dim))


def multi_head(
    params: Grads, x: Bounded, config, masks=None, tape: BoundTape | None = None
) -> tuple[Bounded, Pullback]:
    r"""Linear, attention, linear; cutting into heads only moves numbers."""
    masks, tape = masks or {}, tape or BoundTape()
    qkv, qkv_back = linear(x, params["qkv.weight"], params["qkv.bias"])
    width = config.embed_dim
    q, k, v = (split_heads(qkv[..., i * width : (i + 1) * width], config.num_heads) for i in range(3))
    tape.note(qkv=qkv, q=q, k=k, v=v)
    heads, attention_back = attention(q, k, v, masks.get("attn_drop"), config.attn_drop_rate, tape)
    context = merge_heads(heads)
    out, proj_back = linear(context, params["proj.weight"], params["proj.bias"])
    y, drop_back = dropout(out, masks.get("proj_drop"), config.proj_drop_rate)
    tape.note(context=context, proj=out)

    def pullback(dy: Bounded) -> Grads:
        dout = drop_back(dy)["x"]
        g_proj = proj_back(dout)
        dcontext = g_proj.pop("x")
        tape.note_grads(proj=dout, context=dcontext)
        parts = attention_back(split_heads(dcontext, config.num_heads))
        dqkv = concatenate([merge_heads(parts[n]) for n in "qkv"], -1)
        g_qkv = qkv_back(dqkv)
        tape.note_grads(**parts, qkv=dqkv)
        return {"x": g_qkv.pop("x"), **under("qkv", g_qkv), **under("proj", g_proj)}

    return y, pullback


def mlp(params: Grads, x: Bounded, config, masks=None, tape: BoundTape | None = None) -> tuple[Bounded, Pullback]:
    r"""Linear, GELU, linear, with dropout's two roundings after the activation and at the end."""
    masks, tape = masks or {}, tape or BoundTape()
    hidden, fc1_back = linear(x, params["fc1.weight"], params["fc1.bias"])
    act, act_back = gelu(hidden)
    dropped, drop1_back = dropout(act, masks.get("drop1"), config.proj_drop_rate)
    out, fc2_back = linear(dropped, params["fc2.weight"], params["fc2.bias"])
    y, drop2_back = dropout(out, masks.get("drop2"), config.proj_drop_rate)
    tape.note(fc1=hidden, act=act, fc2=out)

    def pullback(dy: Bounded) -> Grads:
        dout = drop2_back(dy)["x"]
        g_fc2 = fc2_back(dout)
        dact = drop1_back(g_fc2.pop("x"))["x"]
        dhidden = act_back(dact)["x"]
        g_fc1 = fc1_back(dhidden)
        tape.note_grads(fc2=dout, act=dact, fc1=dhidden)
        return {"x": g_fc1.pop("x"), **under("fc1", g_fc1), **under("fc2", g_fc2)}

    return y, pullback


def encoder_block(
    params: Grads, x: Bounded, config, masks=None, drop_path_rate: float = 0.0, tape: BoundTape | None = None
) -> tuple[Bounded, Pullback]:
    r"""Two branches, each after a norm; a residual sum is one rounding, and so is the sum of what comes back."""
    masks, tape = masks or {}, tape or BoundTape()
    drops = {name: sub(masks, name) for name in ("attn", "mlp")}
    n1, norm1_back = layer_norm(x, params["norm1.weight"], params["norm1.bias"], config.norm_eps)
    tape.note(norm1=n1)
    a, attn_back = multi_head(sub(params, "attn"), n1, config, drops["attn"], tape.below("attn"))
    kept, path1_back = dropout(a, masks.get("drop_path1"), drop_path_rate)
    z = x + kept
    n2, norm2_back = layer_norm(z, params["norm2.weight"], params["norm2.bias"], config.norm_eps)
    tape.note(attn=a, residual=z, norm2=n2)
    m, mlp_back = mlp(sub(params, "mlp"), n2, config, drops["mlp"], tape.below("mlp"))
    tape.note(mlp=m)
    m, path2_back = dropout(m, masks.get("drop_path2"), drop_path_rate)

    def pullback(dy: Bounded) -> Grads:
        dm = path2_back(dy)["x"]
        tape.note_grads(mlp=dm)
        g_mlp = mlp_back(dm)
        dn2 = g_mlp.pop("x")
        g_norm2 = norm2_back(dn2)
        dz = g_norm2.pop("x") + dy
        da = path1_back(dz)["x"]
        tape.note_grads(norm2=dn2, residual=dz, attn=da)
        g_attn = attn_back(da)
        dn1 = g_attn.pop("x")
        g_norm1 = norm1_back(dn1)
        tape.note_grads(norm1=dn1)
        dx = g_norm1.pop("x") + dz
        named = {"norm1": g_norm1, "attn": g_attn, "norm2": g_norm2, "mlp": g_mlp}
        return {"x": dx, **{key: g for prefix, grads in named.items() for key, g in under(prefix, grads).items()}}

    return z + m, pullback


def encoder(params: Grads, x: Bounded, config, masks=None, tape: BoundTape | None = None) -> tuple[Bounded, Pullback]:
    r"""Block after block: it grows with the root of the depth, and by each block's amplification."""
    masks, tape, backs = masks or {}, tape or BoundTape(), []
    for i in range(config.depth):
        rate = config.drop_path_rate * i / max(config.depth - 1, 1)
        drops = {k[len(str(i)) + 1 :]: m for k, m in masks.items() if k.startswith(f"{i}.")}
        x, back = encoder_block(sub(params, str(i)), x, config, drops, rate, tape.below(str(i)))
        tape.note(**{str(i): x})
        backs.append(back)

    def pullback(dy: Bounded) -> Grads:
        grads: Grads = {}
        for i, back in reversed(list(enumerate(backs))):
            tape.note_grads(**{str(i): dy})
            g = back(dy)
            dy = g.pop("x")
            grads |= under(str(i), g)
        return {"x": dy, **grads}

    return x, pullback


def head(params: Grads, x: Bounded, config, tape: BoundTape | None = None) -> tuple[Bounded, Pullback]:
    r"""Pool, then linear."""
    tape = tape or BoundTape()
    pooled, pool_back = pool(x, config.pool, int(config.class_token))
    tape.note(pooled=pooled)
    logits, linear_back = pooled, lambda dy: {"x": dy}
    if config.num_classes:
        logits, linear_back = linear(pooled, params["weight"], params["bias"])

    def pullback(dy: Bounded) -> Grads:
        grads = linear_back(dy)
        dpooled = grads.pop("x")
        tape.note_grads(pooled=dpooled)
        return {**pool_back(dpooled), **grads}

    return logits, pullback


def vit(params: Grads, images: Bounded, config, masks=None, tape: BoundTape | None = None) -> tuple[Bounded, Pullback]:
    r"""All stages in order; a fixed table of positions is known to a rounding and to its angles' own error."""
    from parity_tests.naive import sincos_positions

    masks, tape, backs = masks or {}, tape or BoundTape(), {}
    weights = params["patch_embed.proj.weight"], params["patch_embed.proj.bias"]
    x, backs["patch"] = patch_embed(images, *weights)
    tape.note(images=images, patch_embed=x)
    if config.class_token:
        x, backs["class"] = class_token(x, params["cls_token"])
        tape.note(class_token=x)
    if config.pos_embed != "none":
        fixed = config.pos_embed != "learned"
        table = sincos_positions(config) if fixed else None
        # A table rounded once to the dtype; before that the angle, up to T, has a relative error of a few float64 u.
        angle_error = 8 * config.num_tokens * unit_roundoff(np.float64)
        error = images.u * np.abs(table) + angle_error if fixed else 0.0
        pos = images.new(table, error) if fixed else params["pos_embed"]
        x, backs["pos"] = pos_embed(x, pos)
    x, backs["drop"] = dropout(x, masks.get("pos_drop"), config.pos_drop_rate)
    tape.note(tokens=x)
    drops = {k[len("blocks.") :]: m for k, m in masks.items() if k.startswith("blocks.")}
    x, backs["blocks"] = encoder(sub(params, "blocks"), x, config, drops, tape.below("blocks"))
    x, backs["norm"] = layer_norm(x, params["norm.weight"], params["norm.bias"], config.norm_eps)
    tape.note(norm=x)
    logits, backs["head"] = head(sub(params, "head"), x, config, tape)
    tape.note(logits=logits)
    # Each stage, the tape's name of what it gave, and the prefix of its parameters; in the order of the backward pass.
    order = [("head", "logits", "head"), ("norm", "norm", "norm"), ("blocks", "", "blocks"), ("drop", "tokens", ""),
             ("pos", "", ""), ("class", "class_token", ""), ("patch", "patch_embed", "patch_embed.proj")]  # fmt: skip

    def pullback(dy: Bounded) -> Grads:
        grads: Grads = {}
        for stage, output, prefix in order:
            if stage in backs:
                if output:
                    tape.note_grads(**{output: dy})
                g = backs[stage](dy)
                dy = g.pop("x")
                grads |= under(prefix, g) if prefix else g
        tape.note_grads(images=dy)
        if config.pos_embed != "learned":
            grads.pop("pos_embed", None)
        return {"x": dy, **grads}

    return logits, pullback
