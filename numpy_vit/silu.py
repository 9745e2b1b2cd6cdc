r"""SiLU (Swish): each number times its own sigmoid."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import check_shape

Array = np.ndarray


class SiluCache(NamedTuple):
    x: Array  # (...)
    sigmoid: Array  # (...)


def sigmoid(x: Array) -> Array:
    r"""$\sigma(x) = 1/(1 + e^{-x})$, as $\tfrac12(1 + \tanh \tfrac x2)$, which cannot overflow.

    For negative $x$ the sum cancels: its error is about one unit roundoff, absolute, not relative to $\sigma$.
    """
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def silu_forward(x: Array) -> tuple[Array, SiluCache]:
    r"""(...) -> (...).

    $$y = x\, \sigma(x), \qquad \frac{dy}{dx} = \sigma + x\, \sigma (1 - \sigma)$$

    Hendrycks and Gimpel 2016, section 2; Ramachandran et al. 2017.
    """
    gate = sigmoid(x)
    return x * gate, SiluCache(x, gate)


def silu_backward(dy: Array, cache: SiluCache) -> Array:
    """(...) -> dx (...)."""
    x, gate = cache
    check_shape("dy of silu", dy, x.shape)
    return dy * (gate + x * gate * (1.0 - gate))  # y = x sigmoid(x)
