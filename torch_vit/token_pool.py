r"""Pooling of variants: by maximum, by the mean of two things, the class token beside the mean, or none at all."""

import torch
from torch import Tensor

from vit_common.errors import ConfigError, check_least, check_shape

POOLS = ("cls", "mean", "max", "avg_max", "cls_mean", "cls_dist", "none")


def token_pool_forward(x: Tensor, pool: str, prefix: int, include_prefix: bool = False) -> Tensor:
    """(B, T, D) -> (B, D), (B, 2D) for "cls_mean", (B, T, D) for "none".

    Raises:
        ConfigError: another kind of pooling, or no token left to read.
    """
    check_least("token_pool prefix", prefix, 0)
    check_shape("x of token_pool", x, ("B", "T", "D"))
    part = x if include_prefix else x[:, prefix:]
    if pool not in POOLS or not part.shape[1]:
        raise ConfigError(f"cannot pool {pool!r} over {x.shape[1]} tokens with {prefix} before the patches")
    if pool == "none":
        return x
    if pool in ("cls", "cls_dist"):
        return x[:, 0] if pool == "cls" else x[:, :2].mean(dim=1)
    if pool == "max":
        return part.amax(dim=1)
    mean = part.mean(dim=1)
    if pool == "avg_max":
        return 0.5 * (part.amax(dim=1) + mean)
    return mean if pool == "mean" else torch.cat((x[:, 0], mean), dim=1)
