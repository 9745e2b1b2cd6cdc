r"""SiLU (Swish): each number times its own sigmoid."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import check_shape

Array = np.ndarray


class SiluCache(NamedTuple):
    x: Array  # (...)
    sigmoid: Array  # (...)


def sigmoid(x: Array) -> Array:
    r"""$\sigma(x) = 1/(1 + e^{-x})$, and for negative $x$ the same as $e^x/(1 + e^x)$.

    With the exponential of $-|x|$ nothing overflows and nothing cancels: the error is a few units roundoff of $\sigma$.
    """
    right = x.real >= 0
    tail = np.exp(np.where(right, -x, x) if np.iscomplexobj(x) else -np.abs(x))  # exp(-|x|), a complex step's too
    gate = tail * ~right  # the numerator on the left; np.where takes ten times as long
    gate += right  # and 1 on the right
    gate /= tail + 1.0
    return gate


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
