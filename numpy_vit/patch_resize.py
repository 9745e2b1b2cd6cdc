r"""Patch projection learned for one patch size, resized to another, so that resized patches give the same tokens."""

from typing import NamedTuple

import numpy as np

from numpy_vit.resize_matrix import resize_matrix
from vit_common.errors import check_shape

Array = np.ndarray


class PatchResizeCache(NamedTuple):
    rows: Array  # (P_h', P_h)
    columns: Array  # (P_w', P_w)


def patch_resize_forward(
    weight: Array, new: tuple[int, int], rule: str = "timm_bicubic"
) -> tuple[Array, PatchResizeCache]:
    r"""(D, C, P_h, P_w) -> (D, C, P_h', P_w').

    Resizing a patch is a linear map $B$ of its pixels, $B = R \otimes C$ with one matrix an axis. The projection $w'$
    whose dot product with a resized patch is closest to that of $w$ with the patch itself is

    $$w' = (B^\top)^{+} w = (R^\top)^{+}\, w\, C^{+}$$

    Beyer et al. 2023 (FlexiViT), eq. 5; the pseudoinverse of a Kronecker product is that of the factors. **Backward**:
    linear in the weight, so its adjoint is the transposes.

    Raises:
        ShapeError: the weight has not four axes.
    """
    check_shape("patch weight", weight, ("D", "C", "P_h", "P_w"))
    rows, columns = (_pinv(m, n, rule).astype(weight.dtype) for m, n in zip(new, weight.shape[2:], strict=True))
    return rows @ weight @ columns.T, PatchResizeCache(rows, columns)


def patch_resize_backward(dy: Array, cache: PatchResizeCache) -> Array:
    """(D, C, P_h', P_w') -> dweight (D, C, P_h, P_w)."""
    return cache.rows.T @ dy @ cache.columns  # y = rows @ weight @ columns.T


def _pinv(new: int, old: int, rule: str) -> Array:
    if new == old:
        return np.eye(old)
    return np.linalg.pinv(resize_matrix(new, old, rule).T)  # (new, old)
