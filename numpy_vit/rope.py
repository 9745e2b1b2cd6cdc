r"""Rotary position embedding: pairs of channels of query and key are turned by angles that depend on the position.

The dot product of a query turned by $\theta$ and a key turned by $\theta'$ depends on the two angles only through
$\theta - \theta'$, and angles are linear in the position: the scores see relative positions.
"""

from typing import NamedTuple

import numpy as np

from vit_common.errors import check_least, check_shape

Array = np.ndarray


class RopeCache(NamedTuple):
    first: Array  # (B, NH, N, HD/2), the first of each pair
    second: Array  # (B, NH, N, HD/2)
    sin: Array  # (B or 1, NH or 1, N, HD/2)
    cos: Array
    half: bool
    prefix: int


def rope_forward(x: Array, sin: Array, cos: Array, prefix: int = 0, half: bool = False) -> tuple[Array, RopeCache]:
    r"""(B, NH, P + N, HD), sin and cos (B or 1, NH or 1, N, HD/2) -> (B, NH, P + N, HD); the P prefix tokens stay.

    $$\begin{pmatrix} y_1 \\ y_2 \end{pmatrix} =
      \begin{pmatrix} \cos\theta & -\sin\theta \\ \sin\theta & \cos\theta \end{pmatrix}
      \begin{pmatrix} x_1 \\ x_2 \end{pmatrix}$$

    Su et al. 2021, eq. 13. The pairs $(x_1, x_2)$ are neighbouring channels, or with `half` channel $j$ and
    $j + HD/2$. **Backward**: a rotation's adjoint is the rotation back,
    $dx_1 = \cos\theta\, dy_1 + \sin\theta\, dy_2$ and $dx_2 = \cos\theta\, dy_2 - \sin\theta\, dy_1$; the table gets
    $d\sin = x_1\, dy_2 - x_2\, dy_1$ and $d\cos = x_1\, dy_1 + x_2\, dy_2$, summed where they were broadcast.

    Raises:
        ShapeError: sin and cos are not one for each pair and patch.
    """
    check_least("rope prefix", prefix, 0)
    check_shape("x of rope", x, ("B", "NH", "T", "HD"))
    leading = tuple(1 if n == 1 else m for n, m in zip(sin.shape, x.shape[:2], strict=False))
    check_shape("rope sin", sin, (*leading, x.shape[2] - prefix, x.shape[3] // 2))
    check_shape("rope cos", cos, sin.shape)
    first, second = _pairs(x[:, :, prefix:], half)
    turned = _join(first * cos - second * sin, first * sin + second * cos, half)
    y = np.concatenate((x[:, :, :prefix], turned), axis=2)
    return y, RopeCache(first, second, sin, cos, half, prefix)


def rope_backward(dy: Array, cache: RopeCache) -> tuple[Array, Array, Array]:
    """(B, NH, P + N, HD) -> dx (B, NH, P + N, HD), dsin and dcos of the shapes of sin and cos."""
    first, second, sin, cos, half, prefix = cache
    check_shape("dy of rope", dy, (*first.shape[:2], prefix + first.shape[2], 2 * first.shape[3]))
    dfirst, dsecond = _pairs(dy[:, :, prefix:], half)
    back = _join(dfirst * cos + dsecond * sin, dsecond * cos - dfirst * sin, half)  # y = rotation @ x
    spread = tuple(axis for axis in (0, 1) if sin.shape[axis] == 1)
    dsin = (first * dsecond - second * dfirst).sum(axis=spread, keepdims=True)  # y1 = .. - x2 sin, y2 = x1 sin + ..
    dcos = (first * dfirst + second * dsecond).sum(axis=spread, keepdims=True)  # y1 = x1 cos - .., y2 = .. + x2 cos
    return np.concatenate((dy[:, :, :prefix], back), axis=2), dsin, dcos


def _pairs(x: Array, half: bool) -> tuple[Array, Array]:
    middle = x.shape[-1] // 2
    return (x[..., :middle], x[..., middle:]) if half else (x[..., 0::2], x[..., 1::2])


def _join(first: Array, second: Array, half: bool) -> Array:
    if half:
        return np.concatenate((first, second), axis=-1)
    return np.stack((first, second), axis=-1).reshape(*first.shape[:-1], -1)
