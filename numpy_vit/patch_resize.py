r"""Patch projection learned for one patch size, resized so that such patches give the same tokens, or the nearest."""

from typing import NamedTuple

import numpy as np

from numpy_vit.resize_matrix import resize_matrix
from vit_common.errors import check_shape

Array = np.ndarray


class PatchResizeCache(NamedTuple):
    rows: Array  # (P_h', P_h)
    columns: Array  # (P_w', P_w)
    channels: tuple[int, int]  # (D, C)


def patch_resize_forward(
    weight: Array, new: tuple[int, int], rule: str = "timm_bicubic"
) -> tuple[Array, PatchResizeCache]:
    r"""(D, C, P_h, P_w) -> (D, C, P_h', P_w').

    Resizing a patch $x$ is a linear map $B$ of its pixels, $B = R \otimes C$ with one matrix an axis. The projection
    $w'$ for which $\langle Bx, w'\rangle$ is nearest to $\langle x, w\rangle$ in the mean square, over pixels without
    correlation, of mean 0 and variance 1 (the same, where the patch grows), is

    $$w' = (B^\top)^{+} w = (R^\top)^{+}\, w\, C^{+}$$

    Beyer et al. 2023 (FlexiViT), eq. 5; the pseudoinverse of a Kronecker product is that of the factors. **Backward**:
    linear in the weight, so its adjoint multiplies by the transposed matrices.

    Raises:
        ShapeError: the weight has not four axes.
        ConfigError: an unknown rule.
    """
    check_shape("patch weight", weight, ("D", "C", "P_h", "P_w"))
    rows, columns = (_pinv(m, n, rule).astype(weight.dtype) for m, n in zip(new, weight.shape[2:], strict=True))
    return rows @ weight @ columns.T, PatchResizeCache(rows, columns, weight.shape[:2])


def patch_resize_backward(dy: Array, cache: PatchResizeCache) -> Array:
    """(D, C, P_h', P_w') -> dweight (D, C, P_h, P_w)."""
    check_shape("dy of patch_resize", dy, (*cache.channels, len(cache.rows), len(cache.columns)))
    return cache.rows.T @ dy @ cache.columns  # y = rows @ weight @ columns.T


def _pinv(new: int, old: int, rule: str) -> Array:
    if new == old:
        return np.eye(old)
    return np.linalg.pinv(resize_matrix(new, old, rule).T)  # (new, old)
