r"""Attention in place: scores become probabilities in their own memory, sums are products with ones."""

import math

import numpy as np


def attention_forward(q, k, v):
    """(B, NH, T, HD), (B, NH, S, HD), (B, NH, S, HD) -> (B, NH, T, HD)."""
    probs = (q * (1.0 / math.sqrt(q.shape[3]))) @ k.swapaxes(-1, -2)  # (B, NH, T, S), scores so far
    probs -= probs.max(axis=-1, keepdims=True)
    np.exp(probs, out=probs)
    probs /= probs @ np.ones((k.shape[2], 1), q.dtype)
    return probs @ v, (q, k, v, probs)


def attention_backward(dy, cache):
    """(B, NH, T, HD) -> dq, dk, dv."""
    q, k, v, probs = cache
    scale = 1.0 / math.sqrt(q.shape[3])
    dv = probs.swapaxes(-1, -2) @ dy  # y = probs @ v
    dscores = dy @ v.swapaxes(-1, -2)  # d probs so far
    dscores -= (dscores * probs) @ np.ones((k.shape[2], 1), q.dtype)  # probs /= probs.sum()
    dscores *= probs  # probs = exp(scores)
    dq = dscores @ k
    dq *= scale
    dk = dscores.swapaxes(-1, -2) @ q
    dk *= scale
    return dq, dk, dv
