r"""Head: pool the tokens into one vector, map it to class scores."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from vit_common.config import ViTConfig
from vit_common.errors import ConfigError, check_least, check_shape
from vit_common.tape import Tape, note

Array = np.ndarray


class PoolCache(NamedTuple):
    x_shape: tuple[int, int, int]
    pool: str
    prefix: int


def pool_forward(x: Array, pool: str = "cls", prefix: int = 1) -> tuple[Array, PoolCache]:
    r"""(B, T, D) -> (B, D).

    `"cls"`: $y = x_0$, the class token. `"mean"`: $y = \frac1N \sum_{n} x_n$ over the patch tokens, leaving out the
    first `prefix` tokens. **Backward**: the gradient goes to the token read, or $1/N$ of it to each patch; else zero.

    Raises:
        ConfigError: another kind of pooling, or no token left to read.
    """
    check_least("pool prefix", prefix, 0)
    check_shape("x of pool", x, ("B", "T", "D"))
    if pool not in ("cls", "mean") or x.shape[1] <= (prefix if pool == "mean" else 0):
        raise ConfigError(f"cannot pool {pool!r} over {x.shape[1]} tokens with {prefix} before the patches")
    y = x[:, 0].copy() if pool == "cls" else x[:, prefix:].mean(axis=1)
    return y, PoolCache(x.shape, pool, prefix)


def pool_backward(dy: Array, cache: PoolCache) -> Array:
    """(B, D) -> dx (B, T, D)."""
    (batch, tokens, width), pool, prefix = cache
    check_shape("dy of pool", dy, (batch, width))
    dx = np.zeros(cache.x_shape, dy.dtype)
    if pool == "cls":
        dx[:, 0] = dy  # y = x[:, 0]
    else:
        dx[:, prefix:] = dy[:, None] / (tokens - prefix)  # y = x[:, prefix:].mean(axis=1)
    return dx


class HeadCache(NamedTuple):
    pool: PoolCache
    linear: LinearCache | None


def head_forward(
    params: Mapping[str, Array], x: Array, config: ViTConfig, tape: Tape = None
) -> tuple[Array, HeadCache]:
    r"""(B, T, D) -> logits (B, K); with `num_classes=0` the pooled features (B, D).

    $$\mathrm{logits} = \operatorname{pool}(x)\, W^\top + b$$

    Dosovitskiy et al. 2021, eq. 4 (the token that is read) and section 3.1 (the linear head). Logits, not
    probabilities: the loss takes the softmax, once.
    """
    pooled, c_pool = pool_forward(x, config.pool, int(config.class_token))
    note(tape, pooled=pooled)
    if not config.num_classes:
        return pooled, HeadCache(c_pool, None)
    logits, c_linear = linear_forward(pooled, params["weight"], params["bias"])
    return logits, HeadCache(c_pool, c_linear)


def head_backward(dy: Array, cache: HeadCache, tape: Tape = None) -> tuple[Array, dict[str, Array]]:
    """(B, K) -> dx (B, T, D), {"weight": (K, D), "bias": (K,)}."""
    dpooled, grads = (dy, {}) if cache.linear is None else linear_backward(dy, cache.linear)
    note(tape, pooled=dpooled)
    return pool_backward(dpooled, cache.pool), grads
