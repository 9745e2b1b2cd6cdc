r"""Prefix tokens: learned vectors before the patches - class, distillation and register tokens, in this order."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vit_common.errors import check_shape

Array = np.ndarray
ORDER = ("cls_token", "dist_token", "reg_token")


class PrefixTokensCache(NamedTuple):
    counts: dict[str, int]  # tokens of each name, in order
    y_shape: tuple[int, int, int]


def prefix_tokens_forward(x: Array, tokens: Mapping[str, Array]) -> tuple[Array, PrefixTokensCache]:
    r"""(B, N, D), {"cls_token": (1, 1, D), "dist_token": (1, 1, D), "reg_token": (1, R, D)} -> (B, P + N, D).

    $$y_b = [\,c;\; d;\; r_1;\; \dots;\; r_R;\; x_{b1};\; \dots;\; x_{bN}\,]$$

    Class token: Dosovitskiy et al. 2021, eq. 1; distillation token: Touvron et al. 2021, section 4; registers: Darcet
    et al. 2023, section 2.2. **Backward**: as for the class token alone, each gets the sum over the batch.

    Raises:
        ShapeError: a token is not (1, R, D).
    """
    check_shape("x of prefix_tokens", x, ("B", "N", "D"))
    present = {name: tokens[name] for name in ORDER if name in tokens}
    for name, token in present.items():
        check_shape(name, token, (1, "R", x.shape[2]))
    spread = [np.broadcast_to(t, (x.shape[0], *t.shape[1:])) for t in present.values()]  # (B, R, D) each
    y = np.concatenate((*spread, x), axis=1)
    return y, PrefixTokensCache({n: t.shape[1] for n, t in present.items()}, y.shape)


def prefix_tokens_backward(dy: Array, cache: PrefixTokensCache) -> tuple[Array, dict[str, Array]]:
    """(B, P + N, D) -> dx (B, N, D), the tokens' gradients."""
    check_shape("dy of prefix_tokens", dy, cache.y_shape)
    grads, start = {}, 0
    for name, count in cache.counts.items():
        grads[name] = dy[:, start : start + count].sum(axis=0, keepdims=True)  # spread = broadcast_to(token, (B, R, D))
        start += count
    return dy[:, start:], grads
