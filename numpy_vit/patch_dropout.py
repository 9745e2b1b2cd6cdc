r"""Patch dropout: part of the patches is left out of a training pass, which makes it cheaper."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import DtypeError, RangeError, check_shape

Array = np.ndarray


class PatchDropoutCache(NamedTuple):
    keep: Array  # (B, N'), the places of the tokens kept
    x_shape: tuple[int, int, int]
    prefix: int


def kept_places(mask: Array) -> Array:
    """mask (B, N) of bool, True = keep, as many in each row -> their places (B, N'), ascending.

    Raises:
        DtypeError: the mask is not bool.
        RangeError: rows that keep different numbers of patches, or none.
    """
    check_shape("patch_drop mask", mask, ("B", "N"))
    if mask.dtype != np.bool_:
        raise DtypeError(f"patch_drop mask has dtype {mask.dtype}, expected bool with True = keep")
    counts = mask.sum(axis=1)
    if counts.min() != counts.max() or counts.min() < 1:
        raise RangeError(f"patch_drop keeps {counts.min()} to {counts.max()} patches; keep as many in each, not 0")
    return np.nonzero(mask)[1].reshape(len(mask), -1)


def patch_dropout_forward(x: Array, mask: Array, prefix: int = 0) -> tuple[Array, PatchDropoutCache]:
    r"""x (B, T, D), mask (B, N) of bool, True = keep -> (B, T', D): the P prefix tokens and the patches kept,
    $y = [x_0, \dots, x_{P-1}, x_{P + i} \text{ for } i \text{ kept}]$, $T = P + N$.

    Liu et al. 2022 (PatchDropout); Li et al. 2023 (FLIP), section 3; nothing is rescaled. **Backward**: the gradient
    goes to where the token stood, zero elsewhere.

    Raises:
        ShapeError, DtypeError, RangeError: a mask that does not fit.
    """
    check_shape("x of patch_dropout", x, ("B", "T", "D"))
    check_shape("patch_drop mask", mask, (x.shape[0], x.shape[1] - prefix))
    keep = kept_places(mask)
    patches = np.take_along_axis(x[:, prefix:], keep[:, :, None], axis=1)
    return np.concatenate((x[:, :prefix], patches), axis=1), PatchDropoutCache(keep, x.shape, prefix)


def patch_dropout_backward(dy: Array, cache: PatchDropoutCache) -> Array:
    """(B, P + N', D) -> dx (B, P + N, D)."""
    keep, x_shape, prefix = cache
    check_shape("dy of patch_dropout", dy, (len(keep), prefix + keep.shape[1], x_shape[2]))
    dx = np.zeros(x_shape, dy.dtype)
    dx[:, :prefix] = dy[:, :prefix]
    np.put_along_axis(dx[:, prefix:], keep[:, :, None], dy[:, prefix:], axis=1)  # patches = take(x, keep)
    return dx
