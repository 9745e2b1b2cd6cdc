r"""Layer normalisation over the last axis."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vit_common.errors import check_least, check_shape


def layer_norm_forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """(..., D), (D,), (D,) -> (..., D).

    Raises:
        ShapeError: weight or bias is not (D,).
        RangeError: eps is negative.
    """
    check_least("eps", eps, 0.0)
    check_shape("layer_norm weight", weight, x.shape[-1:])
    check_shape("layer_norm bias", bias, x.shape[-1:])
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


class LayerNorm(nn.Module):
    """Parameters `weight`, `bias` (D,)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm_forward(x, self.weight, self.bias, self.eps)
