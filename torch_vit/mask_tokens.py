r"""Mask tokens: one learned vector at every place whose patch the encoder did not see."""

import torch
from torch import Tensor

from torch_vit.patch_dropout import kept_places
from vit_common.errors import check_shape


def mask_tokens_forward(x: Tensor, mask_token: Tensor, mask: Tensor, prefix: int = 1) -> Tensor:
    """x (B, S, D) with S = P + N', (1, 1, D), mask (B, N) of bool, True = seen -> (B, T, D), T = P + N.

    Raises:
        ShapeError: the mask does not keep N' patches.
    """
    keep = kept_places(mask)
    check_shape("x of mask_tokens", x, (len(mask), prefix + keep.shape[1], "D"))
    check_shape("mask_token", mask_token, (1, 1, x.shape[2]))
    patches = mask_token.expand(len(x), mask.shape[1], -1)
    patches = patches.scatter(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[2]), x[:, prefix:])
    return torch.cat((x[:, :prefix], patches), dim=1)
