r"""Linear map of the last axis: $y = x W^\top + b$."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import check_float, check_shape

Array = np.ndarray


class LinearCache(NamedTuple):
    x: Array  # (..., I)
    weight: Array  # (O, I)
    has_bias: bool


def linear_forward(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, LinearCache]:
    r"""(..., I), (O, I), (O,) -> (..., O).

    $$y_{ro} = \sum_i x_{ri} W_{oi} + b_o$$

    All leading axes are rows of one 2-D product. **Backward**, with $g = \partial L/\partial y$:

    $$\frac{\partial L}{\partial x} = g W, \qquad \frac{\partial L}{\partial W} = g^\top x, \qquad
      \frac{\partial L}{\partial b} = \sum_r g_r$$

    Each follows from the sum above by collecting the terms that hold $x_{ri}$, $W_{oi}$, $b_o$: whatever the forward
    broadcasts over (rows, for $W$ and $b$), the backward sums over.

    Raises:
        ShapeError: the last axis of x is not I, or the bias is not (O,).
        DtypeError: x or the weight is not of float32 or float64.
    """
    check_float("x of linear", x)
    check_float("linear weight", weight)
    check_shape("linear weight", weight, ("O", x.shape[-1] if x.ndim else -1))
    rows = x.reshape(-1, x.shape[-1])  # (R, I)
    y = rows @ weight.T  # (R, O)
    if bias is not None:
        check_shape("linear bias", bias, (weight.shape[0],))
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0]), LinearCache(x, weight, bias is not None)


def linear_backward(dy: Array, cache: LinearCache) -> tuple[Array, dict[str, Array]]:
    """(..., O) -> dx (..., I), {"weight": (O, I), "bias": (O,)}; no "bias" if the forward had none."""
    x, weight, has_bias = cache
    check_shape("dy of linear", dy, (*x.shape[:-1], weight.shape[0]))
    rows = x.reshape(-1, x.shape[-1])  # (R, I)
    drows = dy.reshape(-1, dy.shape[-1])  # (R, O)
    grads = {"weight": drows.T @ rows}  # y = rows @ weight.T
    if has_bias:
        grads["bias"] = np.ones(len(drows), dy.dtype) @ drows  # y += bias, broadcast over the rows
    dx = drows @ weight  # y = rows @ weight.T
    return dx.reshape(x.shape), grads
