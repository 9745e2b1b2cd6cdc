r"""LayerNorm in place, on rows: three arrays in the forward, two in the backward; means are products with a column."""

import numpy as np


def layer_norm_forward(x, weight, bias, eps=1e-6):
    """(..., D), (D,), (D,) -> (..., D)."""
    rows, width = x.reshape(-1, x.shape[-1]), x.shape[-1]
    y, xhat, rstd = np.empty_like(rows), np.empty_like(rows), np.empty((len(rows), 1), x.dtype)
    into(rows, weight, bias, eps, y, xhat, rstd, np.ones((width, 1), x.dtype))
    return y.reshape(x.shape), (xhat, rstd, weight)


def into(rows, weight, bias, eps, y, xhat, rstd, ones):
    """(R, D): writes y (R, D), xhat (R, D), rstd (R, 1)."""
    width = rows.shape[1]
    np.subtract(rows, rows @ ones / width, out=xhat)
    np.multiply(xhat, xhat, out=y)
    np.divide(1.0, np.sqrt(y @ ones / width + eps), out=rstd)
    xhat *= rstd
    np.multiply(xhat, weight, out=y)
    y += bias


def layer_norm_backward(dy, cache):
    """(..., D) -> dx (..., D), {"weight": (D,), "bias": (D,)}."""
    xhat, rstd, weight = cache
    g, dx = dy.reshape(xhat.shape), np.empty_like(xhat)
    dweight, dbias = back_into(g, xhat, rstd, weight, dx, np.empty_like(xhat))
    return dx.reshape(dy.shape), {"weight": dweight, "bias": dbias}


def back_into(g, xhat, rstd, weight, dx, work):
    """(R, D): writes dx (R, D), scribbles on work (R, D); returns the gradients of weight and bias, (D,) each."""
    np.multiply(g, xhat, out=work)
    ones, mean_of = np.ones(len(g), g.dtype), weight[:, None] / g.shape[1]
    dweight, dbias = ones @ work, ones @ g  # y = xhat * weight + bias
    along = work @ mean_of
    np.multiply(g, weight, out=dx)
    dx -= g @ mean_of  # xhat = x - mean
    dx -= np.multiply(xhat, along, out=work)  # xhat *= rstd
    dx *= rstd
    return dweight, dbias
