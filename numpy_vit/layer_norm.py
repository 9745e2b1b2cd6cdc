r"""Layer normalisation over the last axis."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import check_shape

Array = np.ndarray


class LayerNormCache(NamedTuple):
    xhat: Array  # (..., D)
    rstd: Array  # (..., 1)
    weight: Array  # (D,)


def layer_norm_forward(x: Array, weight: Array, bias: Array, eps: float = 1e-6) -> tuple[Array, LayerNormCache]:
    r"""(..., D), (D,), (D,) -> (..., D).

    $$\mu = \tfrac1D \sum_i x_i, \quad \sigma^2 = \tfrac1D \sum_i (x_i - \mu)^2, \quad
      \hat x = (x - \mu)\, r, \quad r = (\sigma^2 + \varepsilon)^{-1/2}, \quad y = \hat x \odot w + b$$

    Ba, Kiros and Hinton 2016, eq. 3 and 4. The variance is that of the centred values (two passes): the one-pass
    $E[x^2] - E[x]^2$ cancels when the mean is large.

    **Backward.** With $g = \partial L/\partial y$ and $h = g \odot w$:
    $\partial L/\partial w = \sum_r g \odot \hat x$ and $\partial L/\partial b = \sum_r g$ over all rows. For $x$, from
    $\partial \mu/\partial x_i = 1/D$ and $\partial r/\partial x_i = -r^2 \hat x_i / D$:

    $$\frac{\partial L}{\partial x} = r \Bigl( h - \operatorname{mean}(h)
      - \hat x \, \operatorname{mean}(h \odot \hat x) \Bigr)$$

    the projection of $h$ away from the two directions, $1$ and $\hat x$, that the forward ignores.

    Raises:
        ShapeError: weight or bias is not (D,).
    """
    check_shape("layer_norm weight", weight, x.shape[-1:])
    check_shape("layer_norm bias", bias, x.shape[-1:])
    xhat = x - x.mean(axis=-1, keepdims=True)  # (..., D), centred
    variance = (xhat * xhat).mean(axis=-1, keepdims=True)  # (..., 1)
    rstd = 1.0 / np.sqrt(variance + eps)
    xhat *= rstd
    y = xhat * weight
    y += bias
    return y, LayerNormCache(xhat, rstd, weight)


def layer_norm_backward(dy: Array, cache: LayerNormCache) -> tuple[Array, dict[str, Array]]:
    """(..., D) -> dx (..., D), {"weight": (D,), "bias": (D,)}."""
    xhat, rstd, weight = cache
    check_shape("dy of layer_norm", dy, xhat.shape)
    rows = tuple(range(dy.ndim - 1))
    grads = {"weight": (dy * xhat).sum(axis=rows), "bias": dy.sum(axis=rows)}  # y = xhat * weight + bias
    dx = dy * weight  # dxhat: y = xhat * weight
    along = (dx * xhat).mean(axis=-1, keepdims=True)  # through rstd: xhat *= 1 / sqrt(variance + eps)
    dx -= dx.mean(axis=-1, keepdims=True)  # through the mean: xhat = x - x.mean()
    dx -= xhat * along
    dx *= rstd
    return dx, grads
