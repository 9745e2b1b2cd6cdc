r"""The norm that a configuration names: LayerNorm, or RMSNorm."""

from collections.abc import Mapping

from torch import Tensor, nn

from torch_vit.layer_norm import LayerNorm, layer_norm_forward
from torch_vit.rms_norm import RmsNorm, rms_norm_forward
from vit_common.errors import ConfigError, nearest


def norm_forward(params: Mapping[str, Tensor], x: Tensor, kind: str, eps: float) -> Tensor:
    """(..., D) -> (..., D). Parameters: `weight` (D,) and, of a LayerNorm, `bias` (D,).

    Raises:
        ShapeError: a parameter is not (D,).
        ConfigError: another kind of norm.
    """
    if kind == "rms":
        return rms_norm_forward(x, params["weight"], eps)
    if kind == "layer":
        return layer_norm_forward(x, params["weight"], params["bias"], eps)
    raise ConfigError(f"norm={kind!r} is unknown; {nearest(kind, ('layer', 'rms'))}")


def make_norm(width: int, kind: str, eps: float) -> nn.Module:
    """The module of `norm_forward`."""
    return RmsNorm(width, eps) if kind == "rms" else LayerNorm(width, eps)
