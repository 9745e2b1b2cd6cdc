r"""Images of any sizes in one row, without padding: "Patch n' Pack" (Dehghani et al. 2023, NaViT, section 2.1)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from numpy_vit.head import PoolCache, pool_backward, pool_forward
from numpy_vit.layer_norm import LayerNormCache, layer_norm_backward, layer_norm_forward
from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from numpy_vit.model import check_dtypes
from numpy_vit.packed_attention import segments
from numpy_vit.packed_block import PackedBlockCache, packed_block_backward, packed_block_forward
from numpy_vit.packed_tokens import PackedTokensCache, packed_tokens_backward, packed_tokens_forward
from vit_common.config import ViTConfig
from vit_common.errors import check_shape
from vit_common.params import check_packable, check_params, sub, under

Array = np.ndarray


class PackedCache(NamedTuple):
    tokens: PackedTokensCache
    blocks: list[PackedBlockCache]
    norm: LayerNormCache
    pools: list[PoolCache]  # of each image
    head: LinearCache | None


def packed_forward(
    params: Mapping[str, Array], images: Sequence[Array], config: ViTConfig
) -> tuple[Array, PackedCache]:
    r"""B images (C, H_i, W_i) -> logits (B, K).

    $$\mathrm{logits}_i = \operatorname{vit}(\mathrm{image}_i), \qquad [z_1; \dots; z_B]
      \text{ one row of } \textstyle\sum_i T_i \text{ tokens}$$

    What `vit_forward(params, image[None], config.at_image_size((H_i, W_i)))` says of each image by itself, in one pass:
    only attention mixes tokens, and it keeps to an image's own. The parameters are those of `param_spec(config)`;
    nothing is dropped. **Backward**: the stages in reverse order.

    Raises:
        ConfigError: a variant of the model, or no image.
        CheckpointError: a parameter is missing or unknown.
        ShapeError: an image has other channels, or the patch does not divide it.
        DtypeError: images that are not floating point, or of another dtype than the parameters.
    """
    check_packable(config, len(images))
    check_params(params, config)
    for image in images:
        check_dtypes(params, image)
    x, c_tokens = packed_tokens_forward(params, images, config)  # (1, T, D)
    blocks = []
    for i in range(config.depth):
        x, c_block = packed_block_forward(sub(params, f"blocks.{i}"), x, c_tokens.lengths, config)
        blocks.append(c_block)
    x, c_norm = layer_norm_forward(x, params["norm.weight"], params["norm.bias"], config.norm_eps)
    pooled = [pool_forward(x[:, s], config.pool, int(config.class_token)) for s in segments(c_tokens.lengths)]
    y, pools = np.concatenate([one for one, _ in pooled]), [cache for _, cache in pooled]  # (B, D)
    if not config.num_classes:
        return y, PackedCache(c_tokens, blocks, c_norm, pools, None)
    logits, c_head = linear_forward(y, params["head.weight"], params["head.bias"])
    return logits, PackedCache(c_tokens, blocks, c_norm, pools, c_head)


def packed_backward(dlogits: Array, cache: PackedCache) -> tuple[list[Array], dict[str, Array]]:
    """(B, K) -> dimages (C, H_i, W_i), gradients with exactly the names of the parameters."""
    dy, g_head = (dlogits, {}) if cache.head is None else linear_backward(dlogits, cache.head)
    check_shape("dy of the pooling", dy, (len(cache.pools), len(cache.norm.weight)))
    parts = [pool_backward(dy[i : i + 1], pool) for i, pool in enumerate(cache.pools)]  # y[i] = pool(x[segment i])
    dx, g_norm = layer_norm_backward(np.concatenate(parts, axis=1), cache.norm)
    grads = {**under("head", g_head), **under("norm", g_norm)}
    for i in reversed(range(len(cache.blocks))):
        dx, g_block = packed_block_backward(dx, cache.blocks[i])  # x = block(x)
        grads |= under(f"blocks.{i}", g_block)
    dimages, g_tokens = packed_tokens_backward(dx, cache.tokens)
    return dimages, grads | g_tokens
