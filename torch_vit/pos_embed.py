r"""Positional encoding: learned, or fixed sines and cosines along the sequence (1-D) or the image's axes (2-D)."""

import torch
from torch import Tensor

from vit_common.errors import ShapeError, check_shape


def sincos_1d(positions: int, width: int, base: float = 10000.0) -> Tensor:
    """Fixed positions along the sequence, (positions, width), float64: even indices sine, odd indices cosine."""
    frequencies = base ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies)  # (T, ceil(D/2))
    table = torch.empty(positions, width, dtype=torch.float64)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()[:, : width // 2]
    return table


def sincos_2d(grid_size: tuple[int, int], width: int, base: float = 10000.0) -> Tensor:
    """Fixed positions on the image grid, (grid_h * grid_w, width), float64: [sin x, cos x, sin y, cos y].

    Raises:
        ShapeError: the width is not divisible by 4.
    """
    if width % 4:
        raise ShapeError(f"sincos_2d needs a width divisible by 4, got {width}")
    omega = base ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in grid_size)
    x = torch.outer(columns, omega).repeat(grid_size[0], 1)  # (N, D/4)
    y = torch.outer(rows, omega).repeat_interleave(grid_size[1], dim=0)  # (N, D/4)
    return torch.cat((x.sin(), x.cos(), y.sin(), y.cos()), dim=1)


def pos_embed_forward(x: Tensor, pos_embed: Tensor) -> Tensor:
    """(B, T, D), (1, T, D) -> (B, T, D).

    Raises:
        ShapeError: the positions are not (1, T, D).
    """
    check_shape("x of pos_embed", x, ("B", "T", "D"))
    check_shape("pos_embed", pos_embed, (1, *x.shape[1:]))
    return x + pos_embed
