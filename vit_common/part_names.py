"""The names of the parameters of a part of the model, for those who run a part by itself."""

from collections.abc import Callable
from functools import lru_cache

from vit_common.config import ViTConfig
from vit_common.params import ParamSpec, block_spec, sub

ENCODER_BLOCK = frozenset(block_spec(ViTConfig()))  # whatever the sizes
MULTI_HEAD, MLP = (frozenset(sub(dict.fromkeys(ENCODER_BLOCK), part)) for part in ("attn", "mlp"))


def encoder_names(depth: int) -> frozenset[str]:
    return frozenset(f"{i}.{name}" for i in range(depth) for name in ENCODER_BLOCK)


@lru_cache(maxsize=256)
def names_of(spec: Callable[..., dict[str, ParamSpec]], config: ViTConfig, layer: int) -> frozenset[str]:
    """Of a block beyond the plain one, by its function in `assembled_spec`."""
    return frozenset(spec(config, layer))
