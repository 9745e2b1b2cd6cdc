r"""Class token: one learned vector, put before the patches of every image."""

import torch
from torch import Tensor

from vit_common.errors import check_shape


def class_token_forward(x: Tensor, cls_token: Tensor) -> Tensor:
    """(B, N, D), (1, 1, D) -> (B, 1 + N, D).

    Raises:
        ShapeError: the token is not (1, 1, D).
    """
    check_shape("x of class_token", x, ("B", "N", "D"))
    check_shape("cls_token", cls_token, (1, 1, x.shape[-1]))
    return torch.cat((cls_token.expand(x.shape[0], -1, -1), x), dim=1)
