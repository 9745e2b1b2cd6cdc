r"""Grouped-query attention: several query heads share one head of keys and values."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import ConfigError, check_shape

Array = np.ndarray


class GroupedQueryCache(NamedTuple):
    groups: int
    x_shape: tuple[int, int, int, int]


def grouped_query_forward(x: Array, num_heads: int) -> tuple[Array, GroupedQueryCache]:
    r"""Keys or values (B, KH, S, HD) -> (B, NH, S, HD): query head $h$ reads head $\lfloor h \cdot KH / NH \rfloor$.

    Ainslie et al. 2023. **Backward**: a head that several read gets the sum of their gradients.

    Raises:
        ConfigError: KH does not divide NH.
    """
    check_shape("x of grouped_query", x, ("B", "KH", "S", "HD"))
    if num_heads % x.shape[1]:
        raise ConfigError(f"{x.shape[1]} key and value heads do not divide {num_heads} query heads")
    groups = num_heads // x.shape[1]
    return (x if groups == 1 else np.repeat(x, groups, axis=1)), GroupedQueryCache(groups, x.shape)


def grouped_query_backward(dy: Array, cache: GroupedQueryCache) -> Array:
    """(B, NH, S, HD) -> dx (B, KH, S, HD)."""
    groups, (batch, kept, keys, width) = cache
    check_shape("dy of grouped_query", dy, (batch, kept * groups, keys, width))
    if groups == 1:
        return dy
    return dy.reshape(batch, kept, groups, keys, width).sum(axis=2)  # y = repeat(x, groups)
