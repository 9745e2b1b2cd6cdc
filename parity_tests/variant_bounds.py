r"""The bounds of the variants' leaves, as `bounds.py` has the plain model's: the formula, forward and backward."""

import math

import numpy as np

from parity_tests.bounds import Grads, Pullback, dropout, gelu, softmax
from parity_tests.tolerances import Bounded, concatenate

LAMBDAS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")


def rms_norm(x: Bounded, weight: Bounded, eps: float) -> tuple[Bounded, Pullback]:
    r"""$\gamma_D$ for the mean square, halved by the root; back, the mean $\gamma_D \operatorname{mean}|h \hat x|$."""
    rrms = ((x * x).mean(-1) + x.constant(eps)).rsqrt()
    xhat = x * rrms

    def pullback(dy: Bounded) -> Grads:
        h = dy * weight
        inner = h - xhat * (h * xhat).mean(-1)
        return {"x": inner * rrms, "weight": (dy * xhat).sum(tuple(range(dy.v.ndim - 1)), False)}

    return xhat * weight, pullback


def silu(x: Bounded, slope: float = 1.0) -> tuple[Bounded, Pullback]:
    r"""$x s$, $s = \sigma(kx)$; $s + k x s(1 - s)$ back; every digit of $s$ counts, of $1 - s$ those above $u$."""
    gate = (x * x.constant(slope) if slope != 1.0 else x).sigmoid()
    derivative = gate + x * gate * (-gate + 1.0) * x.constant(slope)
    return x * gate, lambda dy: {"x": dy * derivative}


def quick_gelu(x: Bounded) -> tuple[Bounded, Pullback]:
    r"""SiLU's, at a slope of 1.702: a constant rounded to the precision."""
    return silu(x, 1.702)


def gelu_tanh(x: Bounded) -> tuple[Bounded, Pullback]:
    r"""$\tfrac12 x(1 + t)$, $t = \tanh v$; the cubic's error reaches $t$ by its slope $1 - t^2$, itself known to $u$
    absolutely, and multiplied by $x v'$ back."""
    root, cubic, square = x.constant(math.sqrt(2.0 / math.pi)), x.constant(0.044715), x * x
    t = (x * root * (square * cubic + 1.0)).tanh()
    inner = root * (square * x.constant(3 * 0.044715) + 1.0)
    slope = (t + 1.0) * 0.5 + x * 0.5 * (-(t * t) + 1.0) * inner
    return x * 0.5 * (t + 1.0), lambda dy: {"x": dy * slope}


def relu(x: Bounded) -> tuple[Bounded, Pullback]:
    r"""Exact, and 1-Lipschitz; the slope is known unless the error reaches across 0."""
    positive, unsure = x.v > 0, (np.abs(x.v) <= x.e) & (x.e > 0)

    def pullback(dy: Bounded) -> Grads:
        return {"x": dy.new(dy.v * positive, np.where(unsure, dy.size, dy.e * positive))}

    return x.new(np.maximum(x.v, 0.0), np.where(x.v > -x.e, x.e, 0.0)), pullback


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu, "relu": relu, "silu": silu}


def activation(x: Bounded, name: str) -> tuple[Bounded, Pullback]:
    r"""That of the activation named."""
    return ACTIVATIONS[name](x)


def layer_scale(x: Bounded, gamma: Bounded) -> tuple[Bounded, Pullback]:
    r"""One rounding; $\gamma_R \sum_r |g x|$ for the factor."""
    lead = tuple(range(x.v.ndim - 1))
    return x * gamma, lambda dy: {"x": dy * gamma, "gamma": (dy * x).sum(lead, False)}


def rope(x: Bounded, sin: Bounded, cos: Bounded, prefix: int, half: bool) -> tuple[Bounded, Pullback]:
    r"""$\gamma_2 (|x_1 \cos| + |x_2 \sin|)$, the same back; the factors' gradients are sums over what they turn."""

    def pairs(a: Bounded) -> tuple[Bounded, Bounded]:
        middle = a.v.shape[-1] // 2
        return (a[..., :middle], a[..., middle:]) if half else (a[..., 0::2], a[..., 1::2])

    def join(first: Bounded, second: Bounded) -> Bounded:
        if half:
            return concatenate([first, second], -1)
        stacked = concatenate([first[..., None], second[..., None]], -1)
        return stacked.map(lambda a: a.reshape(*a.shape[:-2], -1))

    first, second = pairs(x[:, :, prefix:])
    turned = join(first * cos - second * sin, first * sin + second * cos)
    spread = tuple(axis for axis in (0, 1) if sin.v.shape[axis] == 1)

    def pullback(dy: Bounded) -> Grads:
        d1, d2 = pairs(dy[:, :, prefix:])
        back = join(d1 * cos + d2 * sin, d2 * cos - d1 * sin)
        factors = {"sin": (first * d2 - second * d1).sum(spread), "cos": (first * d1 + second * d2).sum(spread)}
        return {"x": concatenate([dy[:, :, :prefix], back], 2), **factors}

    return concatenate([x[:, :, :prefix], turned], 2), pullback


def rope_mixed(freqs: Bounded, points: np.ndarray) -> tuple[Bounded, Pullback]:
    r"""$\gamma_2 (|t_1 \omega_1| + |t_2 \omega_2|)$ in the angle, absolutely in sine and cosine. Both stacked."""
    place = freqs.new(points, 0.0)
    t1, t2 = (place[:, i][:, None] for i in (0, 1))
    angles = freqs[0][:, :, None] * t1 + freqs[1][:, :, None] * t2
    sin, cos = angles.sin(), angles.cos()

    def pullback(dy: Bounded) -> Grads:
        dangles = dy[0] * cos - dy[1] * sin
        parts = [(dangles * t).sum(2, False)[None] for t in (t1, t2)]
        return {"freqs": concatenate(parts, 0)}

    return concatenate([sin[None], cos[None]], 0), pullback


def biased_attention(
    q: Bounded, k: Bounded, v: Bounded, bias: Bounded | None = None, drop_mask=None, drop_rate: float = 0.0
) -> tuple[Bounded, Pullback]:
    r"""That of attention, and one rounding for the bias; its gradient is a sum over the axes it was spread along."""
    scale = q.constant(1.0 / math.sqrt(q.v.shape[-1]))
    scores = (q * scale) @ k.T
    probs, softmax_back = softmax(scores if bias is None else scores + bias)
    dropped, drop_back = dropout(probs, drop_mask, drop_rate)

    def pullback(dy: Bounded) -> Grads:
        dscores = softmax_back(drop_back(dy @ v.T)["x"])["x"]
        grads = {"q": dscores @ k * scale, "k": dscores.T @ q * scale, "v": dropped.T @ dy}
        if bias is None:
            return grads
        return {**grads, "bias": dscores.sum(tuple(i for i, n in enumerate(bias.v.shape) if n == 1))}

    return dropped @ v, pullback


def grouped_query(x: Bounded, num_heads: int) -> tuple[Bounded, Pullback]:
    r"""Copies are exact; $\gamma_G \sum |g|$ over the heads that read one."""
    batch, kept, keys, width = x.v.shape
    groups = num_heads // kept
    y = x.map(lambda a: np.concatenate([a[:, h // groups][:, None] for h in range(num_heads)], 1))
    shape = batch, kept, groups, keys, width
    return y, lambda dy: {"x": dy.map(lambda a: a.reshape(shape)).sum(2, False)}


def diff_attention(
    params: Grads, q: Bounded, k: Bounded, v: Bounded, layer: int, bias: Bounded | None = None, drop_mask=None,
    drop_rate: float = 0.0,
) -> tuple[Bounded, Pullback]:  # fmt: skip
    r"""Two attentions' bounds, the second's times $|\lambda|$; $\lambda$'s own error is that of two exponentials; then
    RMSNorm's. $d\lambda = -\langle g, O_2 \rangle$ is one sum over everything."""
    drops = (None, None) if drop_mask is None else (drop_mask[:, 0::2], drop_mask[:, 1::2])
    (o1, back1), (o2, back2) = (
        biased_attention(q[:, i::2], k[:, i::2], v, bias, drops[i], drop_rate) for i in (0, 1)
    )  # fmt: skip
    q1, k1, q2, k2 = (params[name] for name in LAMBDAS)
    start = 0.8 - 0.6 * math.exp(-0.3 * layer)
    e1, e2 = (q1 * k1).sum(0, False).exp(), (q2 * k2).sum(0, False).exp()
    lam, keep = e1 - e2 + q.constant(start), q.constant(1.0 - start)
    normed, norm_back = rms_norm(o1 - o2 * lam, params["sub_norm.weight"], 1e-5)

    def pullback(dy: Bounded) -> Grads:
        g = norm_back(dy * keep)
        do = g["x"]
        first, second = back1(do), back2(-(do * lam))
        dlam = -(do * o2).sum((0, 1, 2, 3), False)
        both = {n: interleave(first[n], second[n]) for n in "qk"}
        dots = dlam * e1 * k1, dlam * e1 * q1, -(dlam * e2) * k2, -(dlam * e2) * q2
        grads = {**both, "v": first["v"] + second["v"], **dict(zip(LAMBDAS, dots, strict=True))}
        if bias is not None:
            grads["bias"] = first["bias"] + second["bias"]
        return grads | {"sub_norm.weight": g["weight"]}

    return normed * keep, pullback


def interleave(first: Bounded, second: Bounded) -> Bounded:
    """Heads 2h from the first, 2h + 1 from the second."""
    pair = concatenate([first[:, :, None], second[:, :, None]], 2)
    return pair.map(lambda a: a.reshape(a.shape[0], -1, *a.shape[3:]))


def rel_pos_bias(table: Bounded, grid: tuple[int, int]) -> tuple[Bounded, Pullback]:
    r"""A look-up is exact; back, $\gamma_c \sum |g|$ over the $c$ scores that read one row."""
    index = rel_pos_rows(grid)

    def pullback(dy: Bounded) -> Grads:
        each = [dy[0][:, index == row].sum(1, False)[None] for row in range(len(table.v))]
        return {"table": concatenate(each, 0)}

    return table.map(lambda a: a[index].transpose(2, 0, 1)[None]), pullback


def rel_pos_rows(grid: tuple[int, int]) -> np.ndarray:
    """The table's row of each query and key, number by number."""
    height, width = grid
    rows = np.empty((1 + height * width,) * 2, int)
    count = (2 * height - 1) * (2 * width - 1)
    for a in range(rows.shape[0]):
        for b in range(rows.shape[1]):
            (y, x), (v, u) = divmod(a - 1, width), divmod(b - 1, width)
            special = count + (2 if a == b == 0 else 0 if a == 0 else 1)
            rows[a, b] = special if 0 in (a, b) else (y - v + height - 1) * (2 * width - 1) + x - u + width - 1
    return rows
