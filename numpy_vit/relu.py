r"""ReLU: the positive part."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import check_shape

Array = np.ndarray


class ReluCache(NamedTuple):
    passes: Array  # (...), bool


def relu_forward(x: Array) -> tuple[Array, ReluCache]:
    r"""(...) -> (...), $y = \max(x, 0)$ with slope 1 where $x > 0$ and 0 elsewhere (at 0 too, as in PyTorch).

    Nair and Hinton 2010. NaN is not <= 0: it stays NaN, with slope 1, as in PyTorch. Of complex numbers (complex-step
    derivatives) the real part decides.
    """
    passes = ~(x.real <= 0)
    zero = x.dtype.type(0)
    y = np.where(passes, x, zero) if np.iscomplexobj(x) else np.maximum(x, zero)
    return y, ReluCache(passes)


def relu_backward(dy: Array, cache: ReluCache) -> Array:
    """(...) -> dx (...)."""
    check_shape("dy of relu", dy, cache.passes.shape)
    return dy * cache.passes  # y = x where not x <= 0
