r"""Rotary position embedding: pairs of channels of query and key are turned by angles that depend on the position."""

import torch
from torch import Tensor

from vit_common.errors import check_least, check_shape


def rope_forward(x: Tensor, sin: Tensor, cos: Tensor, prefix: int = 0, half: bool = False) -> Tensor:
    """(B, NH, P + N, HD), sin and cos (B or 1, NH or 1, N, HD/2) -> (B, NH, P + N, HD); the P prefix tokens stay.

    The pairs are neighbouring channels, or with `half` channel j and j + HD/2.

    Raises:
        ShapeError: sin and cos are not one for each pair and patch.
    """
    check_least("rope prefix", prefix, 0)
    check_shape("x of rope", x, ("B", "NH", "T", "HD"))
    leading = tuple(1 if n == 1 else m for n, m in zip(sin.shape, x.shape[:2], strict=False))
    check_shape("rope sin", sin, (*leading, x.shape[2] - prefix, x.shape[3] // 2))
    check_shape("rope cos", cos, sin.shape)
    patches = x[:, :, prefix:].unflatten(-1, (2, -1) if half else (-1, 2))
    first, second = patches.unbind(-2 if half else -1)
    turned = torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-2 if half else -1).flatten(-2)
    return torch.cat((x[:, :, :prefix], turned), dim=2)
