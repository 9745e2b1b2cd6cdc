r"""RMSNorm: layer normalisation without the mean and without a bias."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import check_float, check_least, check_shape

Array = np.ndarray


class RmsNormCache(NamedTuple):
    xhat: Array  # (..., D)
    rrms: Array  # (..., 1)
    weight: Array  # (D,)


def rms_norm_forward(x: Array, weight: Array, eps: float = 1e-6) -> tuple[Array, RmsNormCache]:
    r"""(..., D), (D,) -> (..., D).

    $$r = \bigl(\tfrac1D \sum_i x_i^2 + \varepsilon\bigr)^{-1/2}, \qquad \hat x = x\, r, \qquad y = \hat x \odot w$$

    Zhang and Sennrich 2019, eq. 4. **Backward.** With $g = \partial L/\partial y$ and $h = g \odot w$:
    $\partial L/\partial w = \sum_\text{rows} g \odot \hat x$, and from $\partial r/\partial x_i = -r^2 \hat x_i / D$

    $$\frac{\partial L}{\partial x} = r \bigl( h - \hat x \operatorname{mean}(h \odot \hat x) \bigr)$$

    Raises:
        ShapeError: the weight is not (D,).
    """
    check_float("x of rms_norm", x)
    check_least("eps", eps, 0.0)
    check_shape("rms_norm weight", weight, x.shape[-1:])
    rrms = 1.0 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)  # (..., 1)
    xhat = x * rrms
    return xhat * weight, RmsNormCache(xhat, rrms, weight)


def rms_norm_backward(dy: Array, cache: RmsNormCache) -> tuple[Array, dict[str, Array]]:
    """(..., D) -> dx (..., D), {"weight": (D,)}."""
    xhat, rrms, weight = cache
    check_shape("dy of rms_norm", dy, xhat.shape)
    grads = {"weight": (dy * xhat).sum(axis=tuple(range(dy.ndim - 1)))}  # y = xhat * weight
    dx = dy * weight  # dxhat: y = xhat * weight
    dx -= xhat * (dx * xhat).mean(axis=-1, keepdims=True)  # through rrms: xhat = x / rms(x)
    dx *= rrms
    return dx, grads
