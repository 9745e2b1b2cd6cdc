r"""Mask tokens: one learned vector at every place whose patch the encoder did not see."""

from typing import NamedTuple

import numpy as np

from numpy_vit.patch_dropout import kept_places
from vit_common.errors import check_shape

Array = np.ndarray


class MaskTokensCache(NamedTuple):
    keep: Array  # (B, N'), the places of the patches seen
    mask: Array  # (B, N), True = seen
    prefix: int
    width: int


def mask_tokens_forward(x: Array, mask_token: Array, mask: Array, prefix: int = 1) -> tuple[Array, MaskTokensCache]:
    r"""x (B, S, D) with $S = P + N'$, (1, 1, D), mask (B, N) of bool, True = seen -> (B, T, D), $T = P + N$.

    $$y_n = \begin{cases} x_{i(n)} & n \text{ seen} \\ m & \text{else} \end{cases}$$

    with $i(n)$ the row of patch $n$ in x; the prefix tokens stay. He et al. 2022, section 3: the encoder's tokens go
    back to their places. **Backward**: each token gets the gradient of its place; the mask token, the sum over all
    places where it stands.

    Raises:
        ShapeError: the mask does not keep N' patches.
        DtypeError, RangeError: as of `kept_places`.
    """
    keep = kept_places(mask)
    check_shape("x of mask_tokens", x, (len(mask), prefix + keep.shape[1], "D"))
    check_shape("mask_token", mask_token, (1, 1, x.shape[2]))
    y = np.empty((len(x), prefix + mask.shape[1], x.shape[2]), x.dtype)
    y[:, prefix:] = mask_token
    y[:, :prefix] = x[:, :prefix]
    np.put_along_axis(y[:, prefix:], keep[:, :, None], x[:, prefix:], axis=1)
    return y, MaskTokensCache(keep, mask, prefix, x.shape[2])


def mask_tokens_backward(dy: Array, cache: MaskTokensCache) -> tuple[Array, dict[str, Array]]:
    """(B, T, D) -> dx (B, S, D), {"mask_token": (1, 1, D)}."""
    keep, mask, prefix, width = cache
    check_shape("dy of mask_tokens", dy, (len(mask), prefix + mask.shape[1], width))
    seen = np.take_along_axis(dy[:, prefix:], keep[:, :, None], axis=1)  # put_along_axis(y, keep, x)
    hidden = dy[:, prefix:] * ~mask[:, :, None]  # y[:, prefix:] = mask_token, where nothing was put after
    grads = {"mask_token": hidden.sum(axis=(0, 1), keepdims=True)}
    return np.concatenate((dy[:, :prefix], seen), axis=1), grads
