r"""Attention in whole arrays: all images and heads in one stacked product, each line a formula and a new array."""

import math

import numpy as np


def attention_forward(q, k, v):
    """(B, NH, T, HD), (B, NH, S, HD), (B, NH, S, HD) -> (B, NH, T, HD)."""
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[3])  # (B, NH, T, S)
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probs = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probs @ v, (q, k, v, probs)


def attention_backward(dy, cache):
    """(B, NH, T, HD) -> dq, dk, dv."""
    q, k, v, probs = cache
    dv = probs.swapaxes(-1, -2) @ dy  # y = probs @ v
    dprobs = dy @ v.swapaxes(-1, -2)
    dscores = probs * (dprobs - (dprobs * probs).sum(axis=-1, keepdims=True))
    dscores = dscores / math.sqrt(q.shape[3])
    return dscores @ k, dscores.swapaxes(-1, -2) @ q, dv
