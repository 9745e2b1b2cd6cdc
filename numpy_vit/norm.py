r"""The norm that a configuration names: LayerNorm, or RMSNorm."""

from collections.abc import Mapping

import numpy as np

from numpy_vit.layer_norm import LayerNormCache, layer_norm_backward, layer_norm_forward
from numpy_vit.rms_norm import RmsNormCache, rms_norm_backward, rms_norm_forward
from vit_common.errors import ConfigError, nearest

Array = np.ndarray
NormCache = LayerNormCache | RmsNormCache


def norm_forward(params: Mapping[str, Array], x: Array, kind: str, eps: float) -> tuple[Array, NormCache]:
    r"""(..., D) -> (..., D), $y = \hat x \odot w$ (RMSNorm) or $\hat x \odot w + b$ (LayerNorm).

    Parameters: `weight` (D,) and, of a LayerNorm, `bias` (D,).

    Raises:
        ShapeError: a parameter is not (D,).
        ConfigError: another kind of norm.
    """
    if kind == "rms":
        return rms_norm_forward(x, params["weight"], eps)
    if kind == "layer":
        return layer_norm_forward(x, params["weight"], params["bias"], eps)
    raise ConfigError(f"norm={kind!r} is unknown; {nearest(kind, ('layer', 'rms'))}")


def norm_backward(dy: Array, cache: NormCache) -> tuple[Array, dict[str, Array]]:
    """(..., D) -> dx (..., D), gradients of the parameters."""
    return rms_norm_backward(dy, cache) if isinstance(cache, RmsNormCache) else layer_norm_backward(dy, cache)
