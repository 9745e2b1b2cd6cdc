r"""Attention in blocks: as many heads and images at a time as have scores that fit the processor's L2 cache."""

import numpy as np

from benchmarks.ladder.attention import in_place

BLOCK = 160_000  # scores at a time


def blocks(q, k):
    """Slices of images and heads, together all of them."""
    batch, heads, tokens, _ = q.shape
    scores = tokens * k.shape[2]
    h = min(heads, max(1, BLOCK // scores))
    b = max(1, BLOCK // (heads * scores))
    for i in range(0, batch, b):
        for j in range(0, heads, h):
            yield slice(i, i + b), slice(j, j + h)


def attention_forward(q, k, v):
    """(B, NH, T, HD), (B, NH, S, HD), (B, NH, S, HD) -> (B, NH, T, HD)."""
    y, caches = np.empty(q.shape, q.dtype), []
    for here in blocks(q, k):
        y[here], cache = in_place.attention_forward(q[here], k[here], v[here])
        caches.append((here, cache))
    return y, (q.shape, k.shape, caches)


def attention_backward(dy, cache):
    """(B, NH, T, HD) -> dq, dk, dv."""
    q_shape, k_shape, caches = cache
    dq, dk, dv = (np.empty(shape, dy.dtype) for shape in (q_shape, k_shape, k_shape))
    for here, part in caches:
        dq[here], dk[here], dv[here] = in_place.attention_backward(dy[here], part)
    return dq, dk, dv
