r"""Learned rotary frequencies, mixed over both axes, for each block and head."""

import torch
from torch import Tensor, nn

from vit_common.errors import check_shape


def rope_mixed_forward(freqs: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """freqs (2, L, NH, HD/2), points (N, 2) -> sin and cos of the angles, (L, NH, N, HD/2) each.

    Raises:
        ShapeError: frequencies for other than two axes.
    """
    check_shape("rope freqs", freqs, (2, "L", "NH", "HD/2"))
    check_shape("rope points", points, ("N", 2))
    angles = torch.einsum("na,alhj->lhnj", points, freqs)
    return angles.sin(), angles.cos()


class RopeMixed(nn.Module):
    """Parameter `freqs` (2, L, NH, HD/2)."""

    def __init__(self, depth: int, num_heads: int, head_dim: int):
        super().__init__()
        self.freqs = nn.Parameter(torch.empty(2, depth, num_heads, head_dim // 2))

    def table(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return rope_mixed_forward(self.freqs, points)
