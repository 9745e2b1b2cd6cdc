r"""Pooling of variants: by maximum, by the mean of two things, the class token beside the mean, or none at all."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import ConfigError, check_least, check_shape

Array = np.ndarray
POOLS = ("cls", "mean", "max", "avg_max", "cls_mean", "cls_dist", "none")


class TokenPoolCache(NamedTuple):
    x_shape: tuple[int, int, int]
    pool: str
    start: int
    top: Array | None  # (B, T', D), 1 / k at each of the k tokens that share a channel's maximum


def token_pool_forward(x: Array, pool: str, prefix: int, include_prefix: bool = False) -> tuple[Array, TokenPoolCache]:
    r"""(B, T, D) -> (B, D), (B, 2D) for "cls_mean", (B, T, D) for "none".

    Over the patch tokens, or all tokens with `include_prefix`: "mean"; "max", channel by channel; "avg_max",
    $\tfrac12(\max + \operatorname{mean})$; "cls", the first token; "cls_mean", $[x_0, \operatorname{mean}]$;
    "cls_dist", $\tfrac12(x_0 + x_1)$; "none", every token as it is.
    **Backward**: the mean spreads its gradient evenly; the maximum's goes to the largest (in equal parts to several
    equally large).

    Raises:
        ConfigError: another kind of pooling, or no token left to read.
    """
    check_least("token_pool prefix", prefix, 0)
    check_shape("x of token_pool", x, ("B", "T", "D"))
    start = 0 if include_prefix else prefix
    if pool not in POOLS or x.shape[1] <= start:
        raise ConfigError(f"cannot pool {pool!r} over {x.shape[1]} tokens with {prefix} before the patches")
    top = None
    part = x[:, start:]
    if pool in ("max", "avg_max"):
        size = part.real if np.iscomplexobj(part) else part
        largest = size == size.max(axis=1, keepdims=True)
        top = largest / largest.sum(axis=1, keepdims=True, dtype=size.dtype)
        most = (np.where(largest, part, 0) * top).sum(axis=1)  # not part * top: -inf * 0 would be NaN
        y = most if pool == "max" else 0.5 * (most + part.mean(axis=1))
    else:
        mean = part.mean(axis=1)
        y = {"cls": x[:, 0].copy(), "mean": mean, "cls_mean": np.concatenate((x[:, 0], mean), axis=1),
             "cls_dist": x[:, :2].mean(axis=1), "none": x.copy()}[pool]  # fmt: skip
    return y, TokenPoolCache(x.shape, pool, start, top)


def token_pool_backward(dy: Array, cache: TokenPoolCache) -> Array:
    """(B, D), (B, 2D) or (B, T, D) -> dx (B, T, D)."""
    (batch, tokens, width), pool, start, top = cache
    shapes = {"cls_mean": (batch, 2 * width), "none": (batch, tokens, width)}
    check_shape("dy of token_pool", dy, shapes.get(pool, (batch, width)))
    if pool == "none":
        return dy.copy()
    dx = np.zeros(cache.x_shape, dy.dtype)
    dmean = {"mean": dy, "avg_max": 0.5 * dy, "cls_mean": dy[:, width:]}.get(pool)
    if dmean is not None:
        dx[:, start:] += dmean[:, None] / (tokens - start)  # mean = part.mean(axis=1)
    if top is not None:
        # most = (where(largest, part, 0) * top).sum(axis=1)
        dx[:, start:] += (dy if pool == "max" else 0.5 * dy)[:, None] * top
    if pool in ("cls", "cls_mean"):
        dx[:, 0] += dy[:, :width]  # x[:, 0]
    if pool == "cls_dist":
        dx[:, :2] += 0.5 * dy[:, None]  # x[:, :2].mean(axis=1)
    return dx
