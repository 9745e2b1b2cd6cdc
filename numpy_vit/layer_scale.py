r"""LayerScale: a learned factor for each channel of a residual branch, small at the start."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import check_shape

Array = np.ndarray


class LayerScaleCache(NamedTuple):
    x: Array  # (..., D)
    gamma: Array  # (D,)


def layer_scale_forward(x: Array, gamma: Array) -> tuple[Array, LayerScaleCache]:
    r"""(..., D), (D,) -> (..., D), $y = x \odot \gamma$.

    Touvron et al. 2021 (CaiT), eq. 4. **Backward**: $\partial L/\partial x = g \odot \gamma$ and
    $\partial L/\partial \gamma = \sum_r g \odot x$ over all rows.

    Raises:
        ShapeError: gamma is not (D,).
    """
    check_shape("layer_scale gamma", gamma, x.shape[-1:])
    return x * gamma, LayerScaleCache(x, gamma)


def layer_scale_backward(dy: Array, cache: LayerScaleCache) -> tuple[Array, dict[str, Array]]:
    """(..., D) -> dx (..., D), {"gamma": (D,)}."""
    x, gamma = cache
    check_shape("dy of layer_scale", dy, x.shape)
    return dy * gamma, {"gamma": (dy * x).sum(axis=tuple(range(dy.ndim - 1)))}  # y = x * gamma
