r"""LayerNorm in whole arrays: each line a formula and a new array."""

import numpy as np


def layer_norm_forward(x, weight, bias, eps=1e-6):
    """(..., D), (D,), (D,) -> (..., D)."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    rstd = 1.0 / np.sqrt(variance + eps)
    xhat = (x - mean) * rstd
    return xhat * weight + bias, (xhat, rstd, weight)


def layer_norm_backward(dy, cache):
    """(..., D) -> dx (..., D), {"weight": (D,), "bias": (D,)}."""
    xhat, rstd, weight = cache
    rows = tuple(range(dy.ndim - 1))
    h = dy * weight
    dx = rstd * (h - h.mean(axis=-1, keepdims=True) - xhat * (h * xhat).mean(axis=-1, keepdims=True))
    return dx, {"weight": (dy * xhat).sum(axis=rows), "bias": dy.sum(axis=rows)}
