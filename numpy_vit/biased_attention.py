r"""Scaled dot-product attention with a bias on the scores: masks, and relative positions."""

import math
from typing import NamedTuple

import numpy as np

from numpy_vit.attention import SoftmaxCache, softmax_backward, softmax_forward
from numpy_vit.dropout import DropoutCache, dropout_backward, dropout_forward
from vit_common.errors import check_shape
from vit_common.tape import Tape, note

Array = np.ndarray


class BiasedAttentionCache(NamedTuple):
    q: Array  # (B, NH, T, HD)
    k: Array  # (B, NH, S, HD)
    v: Array  # (B, NH, S, VD)
    softmax: SoftmaxCache  # probs (B, NH, T, S)
    dropout: DropoutCache
    bias_shape: tuple[int, ...] | None


def biased_attention_forward(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    drop_mask: Array | None = None,
    drop_rate: float = 0.0,
    tape: Tape = None,
) -> tuple[Array, BiasedAttentionCache]:
    r"""(B, NH, T, HD), (B, NH, S, HD), (B, NH, S, VD), bias (B or 1, NH or 1, T or 1, S or 1) -> (B, NH, T, VD).

    $$A = \frac{Q K^\top}{\sqrt{d}} + b, \qquad O = \operatorname{drop}(\operatorname{softmax}(A))\, V$$

    The values may have another width than query and key. **Backward**: that of `attention`; the bias is added, so it
    gets $dA$, summed over the axes along which it was broadcast.

    Raises:
        ShapeError: q, k, v, the bias or the drop mask do not fit each other.
        DtypeError, RangeError: as of `dropout_forward`.
    """
    check_shape("q", q, ("B", "NH", "T", "HD"))
    check_shape("k", k, (*q.shape[:2], "S", q.shape[3]))
    check_shape("v", v, (*q.shape[:2], k.shape[2], "VD"))
    scores = (q * (1.0 / math.sqrt(q.shape[3]))) @ k.swapaxes(-1, -2)  # (B, NH, T, S)
    if bias is not None:
        full = scores.shape
        check_shape("attention bias", bias, ("B", "NH", "T", "S"))
        check_shape("attention bias", bias, tuple(n if m != 1 else 1 for n, m in zip(full, bias.shape, strict=True)))
        scores += bias
    probs, softmax = softmax_forward(scores)
    dropped, dropout = dropout_forward(probs, drop_mask, drop_rate)
    note(tape, scores=scores, probs=probs)
    return dropped @ v, BiasedAttentionCache(q, k, v, softmax, dropout, None if bias is None else bias.shape)


def biased_attention_backward(
    dy: Array, cache: BiasedAttentionCache, tape: Tape = None
) -> tuple[Array, Array, Array, Array | None]:
    """(B, NH, T, VD) -> dq, dk, dv, dbias (None where there was no bias)."""
    q, k, v, softmax, dropout, bias_shape = cache
    check_shape("dy of biased_attention", dy, (*q.shape[:3], v.shape[3]))
    dropped = dropout_backward(softmax.probs, dropout)  # the forward's map again: dropout is its own adjoint
    dv = dropped.swapaxes(-1, -2) @ dy  # y = dropped @ v
    dprobs = dropout_backward(dy @ v.swapaxes(-1, -2), dropout)  # y = dropped @ v
    dscores = softmax_backward(dprobs, softmax)
    note(tape, scores=dscores, probs=dprobs)
    scale = 1.0 / math.sqrt(q.shape[3])
    dq = dscores @ k  # scores = (q * scale) @ k.T + bias
    dq *= scale
    dk = dscores.swapaxes(-1, -2) @ q  # scores = (q * scale) @ k.T + bias
    dk *= scale
    if bias_shape is None:
        return dq, dk, dv, None
    spread = tuple(i for i, n in enumerate(bias_shape) if n == 1)  # the axes along which the bias was broadcast
    return dq, dk, dv, dscores.sum(axis=spread, keepdims=True)  # scores += bias
