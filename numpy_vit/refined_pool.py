r"""Refined pooling: the tokens read each other once more, with no weights at all, before one or their mean is read."""

from typing import NamedTuple

import numpy as np

from numpy_vit.attention import AttentionCache, attention_backward, attention_forward
from numpy_vit.multi_head import merge_heads, split_heads
from vit_common.errors import check_shape
from vit_common.tape import Tape, scope

Array = np.ndarray


class RefinedPoolCache(NamedTuple):
    attention: AttentionCache
    first: bool


def refined_pool_forward(x: Array, heads: int, first: bool, tape: Tape = None) -> tuple[Array, RefinedPoolCache]:
    r"""(B, T, D) -> (B, D), $y = r_0$ or, with `first=False`, the mean of all $r_t$:

    $$r = [\operatorname{attn}(x_1, x_1, x_1), \dots, \operatorname{attn}(x_{NH}, x_{NH}, x_{NH})]$$

    with $x_h$ the slice of head $h$: patch representation refinement, timm's `AttentionPoolPrr`. **Backward**: query,
    key and value are one value, so it gets the sum of their gradients.
    """
    check_shape("x of refined_pool", x, ("B", "T", "D"))
    each = split_heads(x, heads)
    y, cache = attention_forward(each, each, each, tape=scope(tape, "refined"))
    refined = merge_heads(y)  # (B, T, D)
    return (refined[:, 0].copy() if first else refined.mean(axis=1)), RefinedPoolCache(cache, first)


def refined_pool_backward(dy: Array, cache: RefinedPoolCache, tape: Tape = None) -> Array:
    """(B, D) -> dx (B, T, D)."""
    batch, heads, tokens, width = cache.attention.q.shape
    check_shape("dy of refined_pool", dy, (batch, heads * width))
    drefined = np.zeros((batch, tokens, heads * width), dy.dtype)
    if cache.first:
        drefined[:, 0] = dy  # refined[:, 0]
    else:
        drefined += dy[:, None] / tokens  # refined.mean(axis=1)
    dq, dk, dv = attention_backward(split_heads(drefined, heads), cache.attention, scope(tape, "refined"))
    return merge_heads(dq + dk + dv)  # q, k and v are x
