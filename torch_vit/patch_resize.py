r"""Patch projection learned for one patch size, resized so that such patches give the same tokens, or the nearest."""

import torch
from torch import Tensor

from torch_vit.resize_matrix import resize_matrix
from vit_common.errors import check_shape


def patch_resize_forward(weight: Tensor, new: tuple[int, int], rule: str = "timm_bicubic") -> Tensor:
    """(D, C, P_h, P_w) -> (D, C, P_h', P_w'), by the pseudoinverse of the resizing of a patch (FlexiViT).

    Raises:
        ShapeError: the weight has not four axes.
    """
    check_shape("patch weight", weight, ("D", "C", "P_h", "P_w"))
    rows, columns = (_pinv(m, n, rule).to(weight) for m, n in zip(new, weight.shape[2:], strict=True))
    return rows @ weight @ columns.T


def _pinv(new: int, old: int, rule: str) -> Tensor:
    if new == old:
        return torch.eye(old, dtype=torch.float64)
    return torch.linalg.pinv(resize_matrix(new, old, rule).T)
