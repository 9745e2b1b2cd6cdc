r"""The activation that a configuration names: a table of stage pairs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from numpy_vit.gelu import gelu_backward, gelu_forward
from numpy_vit.gelu_tanh import gelu_tanh_backward, gelu_tanh_forward
from numpy_vit.quick_gelu import quick_gelu_backward, quick_gelu_forward
from numpy_vit.relu import relu_backward, relu_forward
from numpy_vit.silu import silu_backward, silu_forward
from vit_common.errors import ConfigError, nearest

Array = np.ndarray

ACTIVATIONS: dict[str, tuple[Callable[[Array], tuple[Array, Any]], Callable[[Array, Any], Array]]] = {
    "gelu": (gelu_forward, gelu_backward),
    "gelu_tanh": (gelu_tanh_forward, gelu_tanh_backward),
    "quick_gelu": (quick_gelu_forward, quick_gelu_backward),
    "relu": (relu_forward, relu_backward),
    "silu": (silu_forward, silu_backward),
}


class ActivationCache(NamedTuple):
    name: str
    stage: Any  # the cache of the stage named


def activation_forward(x: Array, name: str) -> tuple[Array, ActivationCache]:
    r"""(...) -> (...), $y = \phi(x)$ with the $\phi$ named.

    Raises:
        ConfigError: the name is not in the table.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation {name!r} is unknown; {nearest(name, ACTIVATIONS)}")
    y, cache = ACTIVATIONS[name][0](x)
    return y, ActivationCache(name, cache)


def activation_backward(dy: Array, cache: ActivationCache) -> Array:
    """(...) -> dx (...)."""
    return ACTIVATIONS[cache.name][1](dy, cache.stage)
