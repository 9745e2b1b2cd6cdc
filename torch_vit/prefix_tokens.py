r"""Prefix tokens: learned vectors before the patches - class, distillation and register tokens, in this order."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vit_common.errors import check_shape

ORDER = ("cls_token", "dist_token", "reg_token")


def prefix_tokens_forward(x: Tensor, tokens: Mapping[str, Tensor]) -> Tensor:
    """(B, N, D), {"cls_token": (1, 1, D), "dist_token": (1, 1, D), "reg_token": (1, R, D)} -> (B, P + N, D).

    Raises:
        ShapeError: a token is not (1, R, D).
    """
    check_shape("x of prefix_tokens", x, ("B", "N", "D"))
    present = [tokens[name] for name in ORDER if name in tokens]
    for token in present:
        check_shape("prefix token", token, (1, "R", x.shape[2]))
    return torch.cat([*(token.expand(len(x), -1, -1) for token in present), x], dim=1)
