r"""Inference: what a forward pass can leave out when no backward follows, without changing the answer.

`predict` keeps no caches: the memory of one block serves the next, and does not grow with the depth.

`serve` also computes of the last block only what the head reads. The head of a class-token model reads one token of
$T$, and after the last attention tokens no longer meet: there only the class token needs a query, an output projection
and an MLP. Keys and values still come from all tokens. With $M = 4D$ the weight matrices of a block take $12 D^2$
multiplications a token; $10 D^2$ of them fall away for all tokens but one, and so do their scores.
"""

from collections.abc import Mapping

import numpy as np

from numpy_vit.attention import attention_forward
from numpy_vit.class_token import class_token_forward
from numpy_vit.encoder_block import encoder_block_forward
from numpy_vit.head import head_forward
from numpy_vit.layer_norm import layer_norm_forward
from numpy_vit.linear import linear_forward
from numpy_vit.mlp import mlp_forward
from numpy_vit.model import check_dtypes, fixed_pos_embed, vit_forward
from numpy_vit.multi_head import merge_heads, split_heads
from numpy_vit.patch_embed import patch_embed_forward
from numpy_vit.pos_embed import pos_embed_forward
from vit_common.config import ViTConfig
from vit_common.errors import ConfigError, check_shape
from vit_common.params import check_params, sub

Array = np.ndarray


def predict(params: Mapping[str, Array], images: Array, config: ViTConfig) -> Array:
    """images (B, C, H, W) -> logits (B, K), those of `vit_forward` without masks, to the bit.

    Raises:
        CheckpointError, ShapeError, DtypeError: as `vit_forward`.
    """
    if not config.is_plain:
        return vit_forward(params, images, config)[0]
    return _logits(params, _blocks(params, _tokens(params, images, config), config, config.depth), config)


def serve(params: Mapping[str, Array], images: Array, config: ViTConfig) -> Array:
    """images (B, C, H, W) -> logits (B, K), those of `vit_forward` without masks, up to rounding.

    Raises:
        ConfigError: a variant, a model without blocks, or one whose head reads other tokens than the class token.
        CheckpointError, ShapeError, DtypeError: as `vit_forward`.
    """
    if not (config.is_plain and config.pool == "cls" and config.depth):
        raise ConfigError("serve needs a plain model with blocks and pool='cls'; for any other use predict")
    x = _blocks(params, _tokens(params, images, config), config, config.depth - 1)
    return _logits(params, _last_block(sub(params, f"blocks.{config.depth - 1}"), x, config), config)


def _tokens(params: Mapping[str, Array], images: Array, config: ViTConfig) -> Array:
    """(B, C, H, W) -> (B, T, D)."""
    check_dtypes(params, images)
    check_params(params, config)
    check_shape("images", images, ("B", config.in_channels, *config.image_size))
    x, _ = patch_embed_forward(images, params["patch_embed.proj.weight"], params["patch_embed.proj.bias"])
    if config.class_token:
        x, _ = class_token_forward(x, params["cls_token"])
    if config.pos_embed != "none":
        learned = config.pos_embed == "learned"
        x, _ = pos_embed_forward(x, params["pos_embed"] if learned else fixed_pos_embed(config, x.dtype))
    return x


def _blocks(params: Mapping[str, Array], x: Array, config: ViTConfig, count: int) -> Array:
    """(B, T, D) -> (B, T, D), through the first `count` blocks."""
    for i in range(count):
        x, _ = encoder_block_forward(sub(params, f"blocks.{i}"), x, config)
    return x


def _logits(params: Mapping[str, Array], x: Array, config: ViTConfig) -> Array:
    """(B, T, D) -> (B, K); of a class-token model, T may be 1."""
    x, _ = layer_norm_forward(x, params["norm.weight"], params["norm.bias"], config.norm_eps)
    return head_forward(sub(params, "head"), x, config)[0]


def _last_block(params: Mapping[str, Array], x: Array, config: ViTConfig) -> Array:
    """(B, T, D) -> (B, 1, D): row 0 of what `encoder_block_forward` returns."""
    n1, _ = layer_norm_forward(x, params["norm1.weight"], params["norm1.bias"], config.norm_eps)
    weight, bias = params["attn.qkv.weight"], params["attn.qkv.bias"]
    width = config.embed_dim
    q, _ = linear_forward(n1[:, :1], weight[:width], bias[:width])  # (B, 1, D)
    kv, _ = linear_forward(n1, weight[width:], bias[width:])  # (B, T, 2D)
    k, v = np.split(kv, 2, axis=-1)
    q, k, v = (split_heads(part, config.num_heads) for part in (q, k, v))
    heads, _ = attention_forward(q, k, v)  # (B, NH, 1, HD)
    out, _ = linear_forward(merge_heads(heads), params["attn.proj.weight"], params["attn.proj.bias"])
    z = x[:, :1] + out
    n2, _ = layer_norm_forward(z, params["norm2.weight"], params["norm2.bias"], config.norm_eps)
    return z + mlp_forward(sub(params, "mlp"), n2, config)[0]
