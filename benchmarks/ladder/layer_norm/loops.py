r"""LayerNorm by loops: row by row."""

import math

import numpy as np


def layer_norm_forward(x, weight, bias, eps=1e-6):
    """(..., D), (D,), (D,) -> (..., D)."""
    y, xhat, rstd = np.empty_like(x), np.empty_like(x), np.empty((*x.shape[:-1], 1), x.dtype)
    for row in np.ndindex(x.shape[:-1]):
        centred = x[row] - x[row].mean()
        rstd[row] = 1.0 / math.sqrt((centred * centred).mean() + eps)
        xhat[row] = centred * rstd[row]
        y[row] = xhat[row] * weight + bias
    return y, (xhat, rstd, weight)


def layer_norm_backward(dy, cache):
    """(..., D) -> dx (..., D), {"weight": (D,), "bias": (D,)}."""
    xhat, rstd, weight = cache
    dx, grads = np.empty_like(xhat), {"weight": np.zeros_like(weight), "bias": np.zeros_like(weight)}
    for row in np.ndindex(dy.shape[:-1]):
        grads["weight"] += dy[row] * xhat[row]  # y = xhat * weight + bias
        grads["bias"] += dy[row]
        h = dy[row] * weight
        dx[row] = rstd[row] * (h - h.mean() - xhat[row] * (h * xhat[row]).mean())
    return dx, grads
