r"""RMSNorm: layer normalisation without the mean and without a bias."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vit_common.errors import check_least, check_shape


def rms_norm_forward(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """(..., D), (D,) -> (..., D).

    Raises:
        ShapeError: the weight is not (D,).
        RangeError: eps is negative.
    """
    check_least("eps", eps, 0.0)
    check_shape("rms_norm weight", weight, x.shape[-1:])
    return F.rms_norm(x, x.shape[-1:], weight, eps)


class RmsNorm(nn.Module):
    """Parameter `weight` (D,)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm_forward(x, self.weight, self.eps)
