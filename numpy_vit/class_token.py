r"""Class token: one learned vector, put before the patches of every image."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import check_shape

Array = np.ndarray


class ClassTokenCache(NamedTuple):
    y_shape: tuple[int, int, int]


def class_token_forward(x: Array, cls_token: Array) -> tuple[Array, ClassTokenCache]:
    r"""(B, N, D), (1, 1, D) -> (B, 1 + N, D).

    $$y_b = [\,c;\; x_{b1};\; \dots;\; x_{bN}\,]$$

    Dosovitskiy et al. 2021, eq. 1. **Backward**: the same $c$ stands in every image, so its gradient is the sum over
    the batch of the gradients at position 0; the patches get theirs back unchanged.

    Raises:
        ShapeError: the token is not (1, 1, D).
    """
    check_shape("x of class_token", x, ("B", "N", "D"))
    check_shape("cls_token", cls_token, (1, 1, x.shape[-1]))
    first = np.broadcast_to(cls_token, (x.shape[0], 1, x.shape[2]))  # (B, 1, D)
    y = np.concatenate((first, x), axis=1)
    return y, ClassTokenCache(y.shape)


def class_token_backward(dy: Array, cache: ClassTokenCache) -> tuple[Array, dict[str, Array]]:
    """(B, 1 + N, D) -> dx (B, N, D), {"cls_token": (1, 1, D)}."""
    check_shape("dy of class_token", dy, cache.y_shape)
    dcls = dy[:, :1].sum(axis=0, keepdims=True)  # first = broadcast_to(cls_token, (B, 1, D))
    return dy[:, 1:], {"cls_token": dcls}
