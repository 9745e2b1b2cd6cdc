r"""Scaled dot-product attention, and the softmax inside it."""

import math
from typing import NamedTuple

import numpy as np

from numpy_vit.dropout import DropoutCache, dropout_backward, dropout_forward
from vit_common.errors import check_shape
from vit_common.tape import Tape, note

Array = np.ndarray


class SoftmaxCache(NamedTuple):
    probs: Array  # (..., T)


def softmax_forward(x: Array) -> tuple[Array, SoftmaxCache]:
    r"""(..., T) -> (..., T), over the last axis.

    $$p_i = \frac{e^{x_i - m}}{\sum_j e^{x_j - m}}, \qquad m = \max_j x_j$$

    The shift by the row's own maximum cancels in the quotient and keeps the largest exponent at 0.

    **Backward.** $\partial p_i/\partial x_j = p_i(\delta_{ij} - p_j)$, so with $g = \partial L/\partial p$:

    $$\frac{\partial L}{\partial x_i} = p_i \Bigl( g_i - \sum_j g_j p_j \Bigr)$$

    Each row of it sums to zero; for $g = 1$ it vanishes altogether, which is why a test must not use ones.
    """
    probs = x - _row_max(x)
    np.exp(probs, out=probs)
    probs /= probs @ _ones(probs)
    return probs, SoftmaxCache(probs)


def softmax_backward(dy: Array, cache: SoftmaxCache) -> Array:
    """(..., T) -> dx (..., T)."""
    probs = cache.probs
    check_shape("dy of softmax", dy, probs.shape)
    dx = dy * probs
    np.subtract(dy, dx @ _ones(probs), out=dx)  # probs /= probs.sum()
    dx *= probs  # probs = exp(x - m)
    return dx


def _ones(x: Array) -> Array:
    """A column that sums the last axis, x @ ones: (..., T) @ (T, 1), in 0.2 to 0.4 of the time of .sum(axis=-1)."""
    return np.ones((x.shape[-1], 1), x.dtype)


def _row_max(x: Array) -> Array:
    # Of complex numbers (complex-step derivatives) the shift is a constant: the maximum of the real parts.
    return (x.real if np.iscomplexobj(x) else x).max(axis=-1, keepdims=True)


class AttentionCache(NamedTuple):
    q: Array  # (B, NH, T, HD)
    k: Array  # (B, NH, S, HD)
    v: Array  # (B, NH, S, HD)
    softmax: SoftmaxCache  # probs (B, NH, T, S)
    dropout: DropoutCache


def attention_forward(
    q: Array, k: Array, v: Array, drop_mask: Array | None = None, drop_rate: float = 0.0, tape: Tape = None
) -> tuple[Array, AttentionCache]:
    r"""(B, NH, T, HD), (B, NH, S, HD), (B, NH, S, HD) -> (B, NH, T, HD).

    $$A = \frac{Q K^\top}{\sqrt{d}}, \qquad P = \operatorname{softmax}(A), \qquad O = \operatorname{drop}(P)\, V$$

    Vaswani et al. 2017, eq. 1, with $d$ the width of a head (not the number of heads): a dot product of $d$
    independent unit-variance terms has variance $d$.

    **Backward**, with $G = \partial L/\partial O$ and $\tilde P = \operatorname{drop}(P)$:

    $$dV = \tilde P^\top G, \quad d\tilde P = G V^\top, \quad dA = \text{softmax and dropout backward}, \quad
      dQ = \tfrac{1}{\sqrt d}\, dA\, K, \quad dK = \tfrac{1}{\sqrt d}\, dA^\top Q$$

    Raises:
        ShapeError: q, k, v or the drop mask do not fit each other.
        DtypeError, RangeError: as of `dropout_forward`.
    """
    check_shape("q", q, ("B", "NH", "T", "HD"))
    check_shape("k", k, (*q.shape[:2], "S", q.shape[3]))
    check_shape("v", v, (*q.shape[:2], k.shape[2], "HD"))
    scale = 1.0 / math.sqrt(q.shape[3])
    scores = (q * scale) @ k.swapaxes(-1, -2)  # (B, NH, T, S); scaling q costs HD a row, scaling the scores S
    probs, softmax = softmax_forward(scores)
    dropped, dropout = dropout_forward(probs, drop_mask, drop_rate)
    note(tape, scores=scores, probs=probs)
    return dropped @ v, AttentionCache(q, k, v, softmax, dropout)


def attention_backward(dy: Array, cache: AttentionCache, tape: Tape = None) -> tuple[Array, Array, Array]:
    """(B, NH, T, HD) -> dq (B, NH, T, HD), dk (B, NH, S, HD), dv (B, NH, S, HD)."""
    q, k, v, softmax, dropout = cache
    check_shape("dy of attention", dy, (*q.shape[:3], v.shape[3]))
    dropped = dropout_backward(softmax.probs, dropout)  # the forward's map again: dropout is its own adjoint
    dv = dropped.swapaxes(-1, -2) @ dy  # y = dropped @ v
    dprobs = dropout_backward(dy @ v.swapaxes(-1, -2), dropout)  # y = dropped @ v
    dscores = softmax_backward(dprobs, softmax)
    note(tape, probs=dprobs, scores=dscores)
    scale = 1.0 / math.sqrt(q.shape[3])
    dq = dscores @ k  # scores = (q * scale) @ k.T
    dq *= scale
    dk = dscores.swapaxes(-1, -2) @ q  # scores = (q * scale) @ k.T
    dk *= scale
    return dq, dk, dv

