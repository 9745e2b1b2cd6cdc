r"""From patches to the tokens that enter block 0: positions, prefix tokens, dropout."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.dropout import DropoutCache, dropout_backward, dropout_forward
from numpy_vit.patch_dropout import PatchDropoutCache, patch_dropout_backward, patch_dropout_forward
from numpy_vit.pos_embed import PosEmbedCache, pos_embed_backward, pos_embed_forward, sincos_1d, sincos_2d
from numpy_vit.pos_resize import PosResizeCache, pos_resize_backward, pos_resize_forward
from numpy_vit.prefix_tokens import PrefixTokensCache, prefix_tokens_backward, prefix_tokens_forward
from vit_common.config import ViTConfig

Array = np.ndarray


class TokenStemCache(NamedTuple):
    config: ViTConfig
    resize: PosResizeCache | None
    prefix: PrefixTokensCache
    drop: DropoutCache
    patch_drop: PatchDropoutCache | None


def fixed_positions(config: ViTConfig, dtype: np.dtype) -> Array:
    """The sin/cos positions of the configuration, (1, T, D) or, without the prefix tokens, (1, N, D)."""
    prefix = config.num_pos_prefix
    if config.pos_embed == "sincos_1d":
        return sincos_1d(prefix + config.num_patches, config.embed_dim)[None].astype(dtype)
    base = 10000.0
    if config.pos_embed == "sincos_2d_inclusive":  # the last frequency is 1/base itself: base^(-j / (D/4 - 1))
        quarter = config.embed_dim // 4
        base = base ** (quarter / max(quarter - 1, 1))
    return np.pad(sincos_2d(config.grid_size, config.embed_dim, base), ((prefix, 0), (0, 0)))[None].astype(dtype)


def token_stem_forward(
    params: Mapping[str, Array], x: Array, config: ViTConfig, masks: Mapping[str, Array]
) -> tuple[Array, TokenStemCache]:
    r"""(B, N, D) -> (B, T, D), $[\mathrm{prefix};\, x] + p$ or, with `pos_embed_prefix=False`,
    $[\mathrm{prefix};\, x + p]$.

    Positions learned for `pos_grid` are resized. Masks: `pos_drop`, `patch_drop`.
    """
    resize = patch_drop = None
    covered, pos = config.num_pos_prefix, None
    if config.pos_embed == "learned":
        pos = params["pos_embed"]
        if config.pos_grid is not None:
            pos, resize = pos_resize_forward(pos, config.pos_grid, config.grid_size, config.pos_resize, covered)
    elif config.pos_embed != "none":
        pos = fixed_positions(config, x.dtype)
    if pos is not None and config.pos_embed_prefix and not config.pos_embed_registers:
        pos = np.insert(pos, [covered] * config.reg_tokens, 0.0, axis=1)  # the registers have none
    if pos is not None and not config.pos_embed_prefix:
        x, _ = pos_embed_forward(x, pos)
    x, prefix = prefix_tokens_forward(x, params)
    if pos is not None and config.pos_embed_prefix:
        x, _ = pos_embed_forward(x, pos)
    x, drop = dropout_forward(x, masks.get("pos_drop"), config.pos_drop_rate)
    if "patch_drop" in masks:
        x, patch_drop = patch_dropout_forward(x, masks["patch_drop"], config.num_prefix_tokens)
    return x, TokenStemCache(config, resize, prefix, drop, patch_drop)


def token_stem_backward(dy: Array, cache: TokenStemCache) -> tuple[Array, dict[str, Array]]:
    """(B, T, D) -> dx (B, N, D), gradients of the parameters."""
    config, grads = cache.config, {}
    if cache.patch_drop is not None:
        dy = patch_dropout_backward(dy, cache.patch_drop)
    dy = dropout_backward(dy, cache.drop)
    dx, g_prefix = prefix_tokens_backward(dy, cache.prefix)
    if config.pos_embed == "learned":  # x + pos before, or after the prefix tokens were put there
        from_pos = dy if config.pos_embed_prefix else dx
        dpos = pos_embed_backward(from_pos, PosEmbedCache(from_pos.shape))[1]["pos_embed"]
        if config.pos_embed_prefix and not config.pos_embed_registers:
            rows = np.arange(config.num_pos_prefix, config.num_prefix_tokens)
            dpos = np.delete(dpos, rows, axis=1)  # pos = insert(pos, zeros)
        grads["pos_embed"] = dpos if cache.resize is None else pos_resize_backward(dpos, cache.resize)
    return dx, grads | g_prefix
