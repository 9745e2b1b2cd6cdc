r"""The bound of every leaf: its formula, forward and backward, in the arithmetic of `tolerances.Bounded`.

Each function returns `(y, pullback)`; `pullback(dy)` gives the gradients by name. They are written from the equations,
not from either engine, and being bounds they leave the order of every sum open. Where a bound is proved from a shorter
formula than the engines use (a residual sum, a concatenation), the difference is one rounding, which is counted.
"""

import math
from collections.abc import Callable

import numpy as np

from parity_tests.tolerances import ERF, Bounded, concatenate

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
    r"""$\gamma_d |Q||K|^\top$ for the scores, softmax's bound, $\gamma_S |P||V|$; each gradient one product more."""
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


def pool(x: Bounded, pool: str, prefix: int) -> tuple[Bounded, Pullback]:
    tokens = x.v.shape[1]
    if pool == "cls":
        return x[:, 0], lambda dy: {"x": dy.map(lambda a: np.pad(a[:, None], ((0, 0), (0, tokens - 1), (0, 0))))}
    count = tokens - prefix

    def pullback(dy: Bounded) -> Grads:
        each = dy / float(count)
        return {"x": each.map(lambda a: np.pad(np.repeat(a[:, None], count, 1), ((0, 0), (prefix, 0), (0, 0))))}

    return x[:, prefix:].mean(1, keepdims=False), pullback


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
