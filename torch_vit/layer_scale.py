r"""LayerScale: a learned factor for each channel of a residual branch, small at the start."""

import torch
from torch import Tensor, nn

from vit_common.errors import check_shape


def layer_scale_forward(x: Tensor, gamma: Tensor) -> Tensor:
    """(..., D), (D,) -> (..., D).

    Raises:
        ShapeError: gamma is not (D,).
    """
    check_shape("layer_scale gamma", gamma, x.shape[-1:])
    return x * gamma


class LayerScale(nn.Module):
    """Parameter `gamma` (D,)."""

    def __init__(self, width: int, start: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        return layer_scale_forward(x, self.gamma)
