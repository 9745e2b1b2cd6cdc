r"""Quick GELU: a sigmoid in place of the normal distribution's integral (OpenAI CLIP)."""

from typing import NamedTuple

import numpy as np

from numpy_vit.silu import sigmoid
from vit_common.errors import check_shape

Array = np.ndarray
SLOPE = 1.702


class QuickGeluCache(NamedTuple):
    x: Array  # (...)
    sigmoid: Array  # (...)


def quick_gelu_forward(x: Array) -> tuple[Array, QuickGeluCache]:
    r"""(...) -> (...).

    $$y = x\, s, \qquad s = \sigma(1.702\, x), \qquad \frac{dy}{dx} = s + 1.702\, x\, s (1 - s)$$

    Hendrycks and Gimpel 2016, section 2: the sigmoid form of GELU.
    """
    gate = sigmoid(SLOPE * x)
    return x * gate, QuickGeluCache(x, gate)


def quick_gelu_backward(dy: Array, cache: QuickGeluCache) -> Array:
    """(...) -> dx (...)."""
    x, gate = cache
    check_shape("dy of quick_gelu", dy, x.shape)
    return dy * (gate + SLOPE * x * gate * (1.0 - gate))  # y = x sigmoid(1.702 x)
