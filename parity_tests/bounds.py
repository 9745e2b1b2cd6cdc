r"""The bound of every stage: its formula, forward and backward, in the arithmetic of `tolerances.Bounded`.

Each function returns `(y, pullback)`; `pullback(dy)` gives the gradients by name. They are written from the equations,
not from either engine, and being bounds they leave the order of every sum open. Where a bound is proved from a shorter
formula than the engines use (a residual sum, a concatenation), the difference is one rounding, which is counted.
"""

import math
from collections.abc import Callable

import numpy as np

from parity_tests.tolerances import ERF, Bounded, concatenate, unit_roundoff

Pullback = Callable[[Bounded], dict[str, Bounded]]
Grads = dict[str, Bounded]


class BoundTape:
    """Bounds of every intermediate (`values`) and of its gradient (`grads`), under the names of the engines' tapes."""

    def __init__(self, prefix: str = "", values: Grads | None = None, grads: Grads | None = None):
        self.prefix, self.values, self.grads = prefix, {} if values is None else values, {} if grads is None else grads

    def below(self, name: str) -> "BoundTape":
        return BoundTape(f"{self.prefix}{name}.", self.values, self.grads)

    def note(self, **values: Bounded) -> None:
        self.values |= {self.prefix + name: value for name, value in values.items()}

    def note_grads(self, **grads: Bounded) -> None:
        self.grads |= {self.prefix + name: grad for name, grad in grads.items()}


def rows(x: Bounded) -> Bounded:
    return x.map(lambda a: a.reshape(-1, a.shape[-1]))


def like(x: Bounded, shape) -> Bounded:
    return x.map(lambda a: a.reshape(shape))


def under(prefix: str, grads: Grads) -> Grads:
    return {f"{prefix}.{name}": g for name, g in grads.items()}


def sub(params: Grads, prefix: str) -> Grads:
    return {n[len(prefix) + 1 :]: p for n, p in params.items() if n.startswith(prefix + ".")}


def linear(x: Bounded, weight: Bounded, bias: Bounded | None = None) -> tuple[Bounded, Pullback]:
    r"""$\gamma_{I+1} (|x||W|^\top + |b|)$, the bias being one more term of the sum, which an engine may add first;
    $\gamma_O |g||W|$, $\gamma_R |g|^\top|x|$ and $\gamma_R \sum|g|$ back."""
    x2 = rows(x)
    if bias is None:
        y = x2 @ weight.T
    else:
        one = x.new(np.ones((len(x2.v), 1)), 0.0)
        y = concatenate([x2, one], 1) @ concatenate([weight, bias.map(lambda b: b[:, None])], 1).T

    def pullback(dy: Bounded) -> Grads:
        d2 = rows(dy)
        grads = {"x": like(d2 @ weight, x.v.shape), "weight": d2.T @ x2}
        return grads if bias is None else {**grads, "bias": d2.sum(0, keepdims=False)}

    return like(y, (*x.v.shape[:-1], weight.v.shape[0])), pullback


def patch_embed(images: Bounded, weight: Bounded, bias: Bounded | None = None) -> tuple[Bounded, Pullback]:
    r"""The linear map's bound; cutting into patches only moves numbers."""
    from parity_tests.naive import patchify_loops, unpatchify_loops

    patch = weight.v.shape[2:]
    flat = weight.map(lambda a: a.reshape(a.shape[0], -1))
    y, back = linear(images.map(lambda a: patchify_loops(a, patch)), flat, bias)

    def pullback(dy: Bounded) -> Grads:
        grads = back(dy)
        grads["weight"] = like(grads["weight"], weight.v.shape)
        grads["x"] = grads["x"].map(lambda a: unpatchify_loops(a, images.v.shape[1:], patch))
        return grads

    return y, pullback


def class_token(x: Bounded, cls_token: Bounded) -> tuple[Bounded, Pullback]:
    r"""Copies are exact; $\gamma_B \sum_b |g_{b0}|$ for the token."""
    first = cls_token.map(lambda a: np.repeat(a, x.v.shape[0], axis=0))
    return concatenate([first, x], 1), lambda dy: {"x": dy[:, 1:], "cls_token": dy[:, :1].sum(0)}


def pos_embed(x: Bounded, pos: Bounded) -> tuple[Bounded, Pullback]:
    r"""One rounding; $\gamma_B \sum_b |g_b|$ for the positions."""
    return x + pos, lambda dy: {"x": dy, "pos_embed": dy.sum(0)}


def layer_norm(x: Bounded, weight: Bounded, bias: Bounded, eps: float) -> tuple[Bounded, Pullback]:
    r"""Two passes: the mean's error $\gamma_D \operatorname{mean}|x|$ enters the centred values, all else by them."""
    centred = x - x.mean(-1)
    rstd = ((centred * centred).mean(-1) + eps).rsqrt()
    xhat = centred * rstd

    def pullback(dy: Bounded) -> Grads:
        dxhat = dy * weight
        inner = dxhat - dxhat.mean(-1) - xhat * (dxhat * xhat).mean(-1)
        lead = tuple(range(dy.v.ndim - 1))
        return {"x": inner * rstd, "weight": (dy * xhat).sum(lead, False), "bias": dy.sum(lead, False)}

    return xhat * weight + bias, pullback


def gelu(x: Bounded) -> tuple[Bounded, Pullback]:
    r"""$x\Phi(x)$ and $\Phi(x) + x\varphi(x)$, error through $\operatorname{erf}$ and $\exp$.

    An engine may take $\Phi$ from erf, as here, or evaluate it itself as accurately as erf: that error on top.
    """
    cdf = (((x * math.sqrt(0.5)).erf() + 1.0) * 0.5).evaluated(ERF)
    pdf = (x * x * -0.5).exp() * (1.0 / math.sqrt(2.0 * math.pi))
    slope = cdf + x * pdf
    return x * cdf, lambda dy: {"x": dy * slope}


def dropout(x: Bounded, mask, rate: float) -> tuple[Bounded, Pullback]:
    r"""Exact zeros, and two roundings (the scale, the product) elsewhere."""
    if mask is None:
        return x, lambda dy: {"x": dy}
    scale = mask.reshape(mask.shape + (1,) * (x.v.ndim - mask.ndim)) / (1.0 - rate)
    factor = x.new(scale, 2 * x.u * scale)
    return x * factor, lambda dy: {"x": dy * factor}


def softmax(x: Bounded) -> tuple[Bounded, Pullback]:
    r"""Blanchard, Higham and Higham 2021, section 4: the shift costs $u|x_i - m|$, the sum $\gamma_T$."""
    exps = (x - x.v.max(-1, keepdims=True)).exp()
    probs = exps / exps.sum(-1)

    def pullback(dy: Bounded) -> Grads:
        return {"x": probs * (dy - (dy * probs).sum(-1))}

    return probs, pullback


def attention(
    q: Bounded, k: Bounded, v: Bounded, drop_mask=None, drop_rate: float = 0.0, tape: BoundTape | None = None
) -> tuple[Bounded, Pullback]:
    scale = 1.0 / math.sqrt(q.v.shape[-1])
    tape = tape or BoundTape()
    scores = (q * scale) @ k.T
    probs, softmax_back = softmax(scores)
    tape.note(scores=scores, probs=probs)
    dropped, drop_back = dropout(probs, drop_mask, drop_rate)

    def pullback(dy: Bounded) -> Grads:
        dprobs = drop_back(dy @ v.T)["x"]
        dscores = softmax_back(dprobs)["x"]
        tape.note_grads(probs=dprobs, scores=dscores)
        return {"q": dscores @ k * scale, "k": dscores.T @ q * scale, "v": dropped.T @ dy}

    return dropped @ v, pullback


def split_heads(x: Bounded, heads: int) -> Bounded:
    batch, tokens, width = x.v.shape
    return x.map(lambda a: a.reshape(batch, tokens, heads, width // heads).transpose(0, 2, 1, 3))


def merge_heads(x: Bounded) -> Bounded:
    batch, heads, tokens, dim = x.v.shape
    return x.map(lambda a: a.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * dim))


def multi_head(
    params: Grads, x: Bounded, config, masks=None, tape: BoundTape | None = None
) -> tuple[Bounded, Pullback]:
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


def encoder(
    params: Grads, x: Bounded, config, masks=None, tape: BoundTape | None = None
) -> tuple[Bounded, Pullback]:
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


def pool(x: Bounded, pool: str, prefix: int) -> tuple[Bounded, Pullback]:
    tokens = x.v.shape[1]
    if pool == "cls":
        return x[:, 0], lambda dy: {"x": dy.map(lambda a: np.pad(a[:, None], ((0, 0), (0, tokens - 1), (0, 0))))}
    count = tokens - prefix

    def pullback(dy: Bounded) -> Grads:
        each = dy / float(count)
        return {"x": each.map(lambda a: np.pad(np.repeat(a[:, None], count, 1), ((0, 0), (prefix, 0), (0, 0))))}

    return x[:, prefix:].mean(1, keepdims=False), pullback


def head(params: Grads, x: Bounded, config, tape: BoundTape | None = None) -> tuple[Bounded, Pullback]:
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


def cross_entropy(logits: Bounded, labels, label_smoothing: float) -> tuple[Bounded, Pullback]:
    r"""Log-sum-exp of Blanchard, Higham and Higham 2021, section 3; the gradient is a softmax less its target."""
    batch, classes = logits.v.shape
    shifted = logits - logits.v.max(1, keepdims=True)
    log_probs = shifted - shifted.exp().sum(1).log()
    target = np.full((batch, classes), label_smoothing / classes)
    target[np.arange(batch), labels] += 1.0 - label_smoothing
    losses = (log_probs * target).sum(1, keepdims=False)

    def pullback(dy: Bounded) -> Grads:
        return {"x": (log_probs.exp() - target) * (dy / float(batch))}

    return -losses.mean(0, keepdims=False), pullback


def vit(params: Grads, images: Bounded, config, masks=None, tape: BoundTape | None = None) -> tuple[Bounded, Pullback]:
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
