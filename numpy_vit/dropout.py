r"""Dropout and stochastic depth, with the mask as an explicit input.

The masks are drawn outside (`vit_common.masks`), so a stage stays a pure function and both engines drop the same.
"""

import math
from typing import NamedTuple

import numpy as np

from vit_common.errors import DtypeError, RangeError, check_shape

Array = np.ndarray


class DropoutCache(NamedTuple):
    mask: Array | None  # the mask, True = keep, shaped to broadcast against x; None: nothing was dropped
    scale: float
    x_shape: tuple[int, ...]


def dropout_forward(x: Array, mask: Array | None, rate: float) -> tuple[Array, DropoutCache]:
    r"""x (...), mask (...) of bool, True = keep -> (...).

    $$y = \frac{m \odot x}{1 - p}$$

    with the mask $m$ and the rate $p$. Srivastava et al. 2014, in the inverted form: dividing by the keep rate makes
    $E[y] = x$, so nothing changes at test time. With `mask=None` the stage is the identity.
    **Backward**: $g \odot m / (1 - p)$, the same linear map.

    Raises:
        ShapeError: the mask has not the shape of x.
        DtypeError: the mask is not bool.
        RangeError: the rate is not in [0, 1).
    """
    if mask is not None:
        check_shape("dropout mask", mask, x.shape)
    return _drop(x, mask, rate)


def dropout_backward(dy: Array, cache: DropoutCache) -> Array:
    """(...) -> dx (...)."""
    check_shape("dy of dropout", dy, cache.x_shape)
    if cache.mask is None:
        return dy
    dx = dy * cache.mask  # y = x * mask * scale
    dx *= cache.scale
    return dx


def drop_path_forward(x: Array, mask: Array | None, rate: float) -> tuple[Array, DropoutCache]:
    r"""x (B, ...), mask (B,) of bool, True = keep -> (B, ...): a whole branch, $y_b = m_b\, x_b / (1 - p)$.

    Stochastic depth (Huang et al. 2016, eq. 2), rescaled in training, like dropout, instead of at test time (their
    eq. 5). Its backward is `dropout_backward`.

    Raises:
        ShapeError: the mask is not (B,).
        DtypeError: the mask is not bool.
        RangeError: the rate is not in [0, 1).
    """
    if mask is not None:
        check_shape("drop_path mask", mask, x.shape[:1])
        mask = mask.reshape(-1, *(1,) * (x.ndim - 1))  # (B, 1, ..., 1)
    return _drop(x, mask, rate)


drop_path_backward = dropout_backward


def _drop(x: Array, mask: Array | None, rate: float) -> tuple[Array, DropoutCache]:
    if not (math.isfinite(rate) and 0.0 <= rate < 1.0):
        raise RangeError(f"drop rate {rate} is outside [0, 1)")
    if mask is None:
        return x, DropoutCache(None, 1.0, x.shape)
    if mask.dtype != np.bool_:
        raise DtypeError(f"drop mask has dtype {mask.dtype}, expected bool with True = keep")
    scale = 1.0 / (1.0 - rate)
    y = x * mask
    y *= scale
    return y, DropoutCache(mask, scale, x.shape)
