r"""Grouped-query attention: several query heads share one head of keys and values."""

from torch import Tensor

from vit_common.errors import ConfigError, check_shape


def grouped_query_forward(x: Tensor, num_heads: int) -> Tensor:
    """Keys or values (B, KH, S, HD) -> (B, NH, S, HD): query head h reads head h * KH // NH.

    Raises:
        ConfigError: KH does not divide NH.
    """
    check_shape("x of grouped_query", x, ("B", "KH", "S", "HD"))
    if num_heads % x.shape[1]:
        raise ConfigError(f"{x.shape[1]} key and value heads do not divide {num_heads} query heads")
    return x.repeat_interleave(num_heads // x.shape[1], dim=1)
