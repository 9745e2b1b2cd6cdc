r"""Attention within the segments of a packed row: tokens of several images, of which each reads its own image."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from numpy_vit.attention import AttentionCache, attention_backward, attention_forward
from vit_common.errors import ShapeError, check_shape

Array = np.ndarray


class PackedAttentionCache(NamedTuple):
    parts: list[AttentionCache]
    lengths: tuple[int, ...]


def packed_attention_forward(
    q: Array, k: Array, v: Array, lengths: Sequence[int]
) -> tuple[Array, PackedAttentionCache]:
    r"""(B, NH, T, HD) three times, lengths $T_s$ with $\sum_s T_s = T$ -> (B, NH, T, HD).

    $$O = \operatorname{softmax}\Bigl(\frac{Q K^\top}{\sqrt d} + M\Bigr) V, \qquad
      M_{ij} = 0 \text{ within a segment}, \; -\infty \text{ between two}$$

    Dehghani et al. 2023 (NaViT), section 2.1. The probabilities are block-diagonal, so a segment is attention by
    itself, $O_s = \operatorname{attention}(Q_s, K_s, V_s)$: $\sum_s T_s^2$ scores in the place of $T^2$, and no mask.
    **Backward**: that of each segment by itself.

    Raises:
        ShapeError: q, k, v do not fit each other, or the lengths are not positive numbers whose sum is T.
    """
    check_qkv(q, k, v, lengths)
    y, parts = np.empty((*q.shape[:3], v.shape[3]), q.dtype), []
    for s in segments(lengths):
        y[:, :, s], cache = attention_forward(q[:, :, s], k[:, :, s], v[:, :, s])
        parts.append(cache)
    return y, PackedAttentionCache(parts, tuple(lengths))


def packed_attention_backward(dy: Array, cache: PackedAttentionCache) -> tuple[Array, Array, Array]:
    """(B, NH, T, HD) -> dq, dk, dv (B, NH, T, HD)."""
    batch, heads, _, width = cache.parts[0].v.shape
    check_shape("dy of packed_attention", dy, (batch, heads, sum(cache.lengths), width))
    grads = [attention_backward(dy[:, :, s], c) for s, c in zip(segments(cache.lengths), cache.parts, strict=True)]
    dq, dk, dv = (np.concatenate(parts, axis=2) for parts in zip(*grads, strict=True))  # y[s] = attention(q[s], ...)
    return dq, dk, dv


def segments(lengths: Sequence[int]) -> Iterator[slice]:
    """Where each segment lies in the row: 0 to T_0, T_0 to T_0 + T_1, and so on."""
    ends = list(accumulate(lengths))
    return (slice(end - length, end) for end, length in zip(ends, lengths, strict=True))


def check_qkv(q: Array, k: Array, v: Array, lengths: Sequence[int]) -> None:
    check_shape("q", q, ("B", "NH", "T", "HD"))
    check_shape("k", k, q.shape)
    check_shape("v", v, (*q.shape[:3], "HD"))
    if min(lengths, default=0) < 1 or sum(lengths) != q.shape[2]:
        raise ShapeError(f"segments of {list(lengths)} tokens do not make a row of {q.shape[2]}; each has at least one")
