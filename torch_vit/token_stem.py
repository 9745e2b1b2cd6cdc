r"""From patches to the tokens that enter block 0: positions, prefix tokens, dropout."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_vit.dropout import dropout_forward
from torch_vit.patch_dropout import patch_dropout_forward
from torch_vit.pos_embed import pos_embed_forward, sincos_1d, sincos_2d
from torch_vit.pos_resize import pos_resize_forward
from torch_vit.prefix_tokens import prefix_tokens_forward
from vit_common.config import ViTConfig


def fixed_positions(config: ViTConfig) -> Tensor:
    """The sin/cos positions of the configuration, (1, T, D) or, without the prefix tokens, (1, N, D), float64."""
    prefix = config.num_pos_prefix
    if config.pos_embed == "sincos_1d":
        return sincos_1d(prefix + config.num_patches, config.embed_dim)[None]
    quarter, base = config.embed_dim // 4, 10000.0
    if config.pos_embed == "sincos_2d_inclusive":  # the last frequency is 1/base itself: base^(-j / (D/4 - 1))
        base = base ** (quarter / max(quarter - 1, 1))
    return F.pad(sincos_2d(config.grid_size, config.embed_dim, base), (0, 0, prefix, 0))[None]


def token_stem_forward(
    params: Mapping[str, Tensor], x: Tensor, config: ViTConfig, masks: Mapping[str, Tensor], random: bool = False
) -> Tensor:
    """(B, N, D) -> (B, T, D). Masks: `pos_drop`, `patch_drop`."""
    covered, pos = config.num_pos_prefix, None
    if config.pos_embed == "learned":
        pos = params["pos_embed"]
        if config.pos_grid is not None:
            pos = pos_resize_forward(pos, config.pos_grid, config.grid_size, config.pos_resize, covered)
    elif config.pos_embed != "none":
        pos = fixed_positions(config).to(x)
    if pos is not None and config.pos_embed_prefix and not config.pos_embed_registers:
        pos = torch.cat((pos[:, :covered], pos.new_zeros(1, config.reg_tokens, pos.shape[2]), pos[:, covered:]), dim=1)
    if pos is not None and not config.pos_embed_prefix:
        x = pos_embed_forward(x, pos)
    x = prefix_tokens_forward(x, params)
    if pos is not None and config.pos_embed_prefix:
        x = pos_embed_forward(x, pos)
    x = dropout_forward(x, masks.get("pos_drop"), config.pos_drop_rate, random)
    if "patch_drop" in masks:
        x = patch_dropout_forward(x, masks["patch_drop"], config.num_prefix_tokens)
    return x
