r"""ReLU: the positive part."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import check_shape

Array = np.ndarray


class ReluCache(NamedTuple):
    positive: Array  # (...), bool


def relu_forward(x: Array) -> tuple[Array, ReluCache]:
    r"""(...) -> (...), $y = \max(x, 0)$ with slope 1 where $x > 0$ and 0 elsewhere (at 0 too, as in PyTorch).

    Nair and Hinton 2010. NaN stays NaN. Of complex numbers (complex-step derivatives) the real part decides.
    """
    positive = (x.real if np.iscomplexobj(x) else x) > 0
    return np.where(positive | np.isnan(x), x, x.dtype.type(0)), ReluCache(positive)


def relu_backward(dy: Array, cache: ReluCache) -> Array:
    """(...) -> dx (...)."""
    check_shape("dy of relu", dy, cache.positive.shape)
    return dy * cache.positive  # y = x where x > 0
