r"""Attention by loops: image by image, head by head, query by query."""

import math

import numpy as np


def attention_forward(q, k, v):
    """(B, NH, T, HD), (B, NH, S, HD), (B, NH, S, HD) -> (B, NH, T, HD)."""
    y, probs = np.empty_like(q), np.empty((*q.shape[:3], k.shape[2]), q.dtype)
    scale = 1.0 / math.sqrt(q.shape[3])
    for b, h, t in np.ndindex(q.shape[:3]):
        scores = k[b, h] @ q[b, h, t] * scale  # (S,)
        weights = np.exp(scores - scores.max())
        probs[b, h, t] = weights / weights.sum()
        y[b, h, t] = probs[b, h, t] @ v[b, h]
    return y, (q, k, v, probs)


def attention_backward(dy, cache):
    """(B, NH, T, HD) -> dq, dk, dv."""
    q, k, v, probs = cache
    dq, dk, dv = (np.zeros_like(a) for a in (q, k, v))
    scale = 1.0 / math.sqrt(q.shape[3])
    for b, h, t in np.ndindex(q.shape[:3]):
        p, g = probs[b, h, t], dy[b, h, t]
        dv[b, h] += np.outer(p, g)  # y = p @ v
        dp = v[b, h] @ g
        dscores = p * (dp - dp @ p) * scale  # p = softmax(scores)
        dq[b, h, t] = dscores @ k[b, h]  # scores = k @ q * scale
        dk[b, h] += np.outer(dscores, q[b, h, t])
    return dq, dk, dv
