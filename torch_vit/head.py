r"""Head: pool the tokens into one vector, map it to class scores."""

from collections.abc import Mapping

from torch import Tensor

from torch_vit.linear import linear_forward
from vit_common.config import ViTConfig
from vit_common.errors import ConfigError, check_least, check_shape


def pool_forward(x: Tensor, pool: str = "cls", prefix: int = 1) -> Tensor:
    """(B, T, D) -> (B, D): the class token, or the mean of the patch tokens.

    Raises:
        ConfigError: another kind of pooling, or no token left to read.
    """
    check_least("pool prefix", prefix, 0)
    check_shape("x of pool", x, ("B", "T", "D"))
    if pool not in ("cls", "mean") or x.shape[1] <= (prefix if pool == "mean" else 0):
        raise ConfigError(f"cannot pool {pool!r} over {x.shape[1]} tokens with {prefix} before the patches")
    return x[:, 0] if pool == "cls" else x[:, prefix:].mean(dim=1)


def head_forward(params: Mapping[str, Tensor], x: Tensor, config: ViTConfig) -> Tensor:
    """(B, T, D) -> logits (B, K); with `num_classes=0` the pooled features (B, D)."""
    pooled = pool_forward(x, config.pool, int(config.class_token))
    return linear_forward(pooled, params["weight"], params["bias"]) if config.num_classes else pooled
